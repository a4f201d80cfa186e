// Package config reads what an operator set: the configuration file, below the
// environment, below the flags; and what os-rescue needs to know from nova.conf.
package config
