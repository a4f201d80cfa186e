package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// meant returns the command that a command line was meant for. cobra reports the
// root command if it does not know a flag before the command's name.
func meant(root, found *cobra.Command, args []string) *cobra.Command {
	if found != nil && found != root {
		return found
	}
	skip := false
	for _, arg := range args {
		switch {
		case skip:
			skip = false
		case !strings.HasPrefix(arg, "-"):
			for _, cmd := range root.Commands() {
				if cmd.Name() == arg {
					return cmd
				}
			}
			return root
		default:
			f := flagNamed(root, arg)
			skip = f != nil && f.NoOptDefVal == ""
		}
	}
	return root
}

// flagNamed returns the flag that arg names; nil if arg contains the flag's value as
// well, or names no flag.
func flagNamed(cmd *cobra.Command, arg string) *pflag.Flag {
	name := strings.TrimLeft(arg, "-")
	switch {
	case name == "" || strings.Contains(name, "="):
		return nil
	case strings.HasPrefix(arg, "--"):
		return cmd.Flag(name)
	case len(name) > 1:
		return nil
	}
	if f := cmd.PersistentFlags().ShorthandLookup(name); f != nil {
		return f
	}
	return cmd.Flags().ShorthandLookup(name)
}
