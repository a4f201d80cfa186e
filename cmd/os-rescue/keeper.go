package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

func newKeeper(a *app) *cobra.Command {
	dir := ""
	cmd := &cobra.Command{
		Use:    "keeper --dir DIR",
		Short:  "Hold lost files open; os-rescue starts it by itself",
		Long:   `The process that holds lost files open. os-rescue starts it, and it ends by itself.`,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return fmt.Errorf("%w: give --dir DIR", recover.ErrUsage)
			}
			if !a.sys.isRoot {
				return errNotRoot
			}
			// The keeper itself decides which signals end it.
			return keeper.Serve(context.WithoutCancel(cmd.Context()), keeper.Options{Dir: dir})
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "state `directory`")
	return cmd
}
