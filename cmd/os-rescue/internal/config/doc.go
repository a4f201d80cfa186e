// Package config reads the settings of the operator from the configuration file, the
// environment and the flags, in ascending order of precedence, and those settings of
// nova.conf that os-rescue needs.
//
// May call: cmd/os-rescue/internal/nearest, recover, guard.
package config
