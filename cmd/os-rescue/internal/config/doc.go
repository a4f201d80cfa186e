// Package config reads the settings of the operator from the configuration file, the
// environment and the flags, in ascending order of precedence, and those settings of
// Nova's configuration that os-rescue needs.
//
// May call: cmd/os-rescue/internal/nearest, cmd/os-rescue/internal/novaconf, recover, guard, plainfile.
package config
