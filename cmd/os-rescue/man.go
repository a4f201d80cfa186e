package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan(*app) *cobra.Command {
	return &cobra.Command{
		Use:   "man [DIR]",
		Short: "Write the manual pages into a directory",
		Long: `Writes one manual page per command into DIR, which is created if missing, or
into the current directory. SOURCE_DATE_EPOCH, if set, is the date of the pages.`,
		Example: `  os-rescue man /usr/local/share/man/man8`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("%w: %w", errOutput, err)
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Title: "OS-RESCUE", Section: "8", Source: "os-rescue", Manual: "System administration"}
			if err := doc.GenManTree(root, header, dir); err != nil {
				return fmt.Errorf("%w: %w", errOutput, err)
			}
			return nil
		},
	}
}
