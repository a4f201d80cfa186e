package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/render"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

func newKeeper(a *app) *cobra.Command {
	dir := ""
	cmd := &cobra.Command{
		Use:     "keeper",
		Short:   "Hold lost files open; os-rescue starts it by itself",
		Long:    `The process that holds lost files open. os-rescue starts it, and it ends by itself.`,
		Example: `  os-rescue keeper release 6f0c1f4e-3d53-4c9c-8a83-0d5b0c1f9a11`,
		Args:    cobra.NoArgs,
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
	_ = cmd.Flags().MarkHidden("dir")
	cmd.AddCommand(newKeeperRelease(a))
	return cmd
}

// keeperRelease are the flags of keeper release.
type keeperRelease struct {
	all, yes   bool
	acceptLoss []string
}

func newKeeperRelease(a *app) *cobra.Command {
	var f keeperRelease
	cmd := &cobra.Command{
		Use:   "release UUID... | --all",
		Short: "Make the keeper release the lost files of instances",
		Long:  help("keeper-release"),
		Example: `  os-rescue keeper release 6f0c1f4e-3d53-4c9c-8a83-0d5b0c1f9a11
  os-rescue keeper release --all --accept-loss last-copy`,
		RunE: func(cmd *cobra.Command, args []string) error { return releaseHolds(a, cmd, args, f) },
	}
	cmd.Flags().BoolVar(&f.all, "all", false, "everything that the keeper holds")
	cmd.Flags().StringSliceVar(&f.acceptLoss, "accept-loss", nil, lossLastCopy+" lets go of last copies too: `WHAT` is lost for good")
	addYes(cmd, &f.yes)
	return cmd
}

// releaseHolds shows what the keeper holds, asks, and lets it go.
func releaseHolds(a *app, cmd *cobra.Command, uuids []string, f keeperRelease) error {
	switch {
	case f.all == (len(uuids) > 0):
		return fmt.Errorf("%w: name instances by UUID, or give --all", recover.ErrUsage)
	case slices.ContainsFunc(f.acceptLoss, func(loss string) bool { return loss != lossLastCopy }):
		return fmt.Errorf("%w: --accept-loss is %s: it must be %s", recover.ErrUsage, strings.Join(f.acceptLoss, ","), lossLastCopy)
	}
	ctx, e, err := a.open(cmd, false)
	if err != nil {
		return err
	}
	defer e.close()
	holds, err := e.KeeperHolds(ctx, uuids)
	if errors.Is(err, keeper.ErrNoKeeper) || err == nil && len(holds) == 0 {
		return fmt.Errorf("%w: the keeper holds nothing of that", recover.ErrNothingSelected)
	}
	if err != nil {
		return err
	}
	last := len(f.acceptLoss) > 0
	if !f.yes {
		lost := 0
		for _, h := range holds {
			if h.Last && last && h.Run == "" {
				lost++
			}
		}
		does := "what else has the files keeps them"
		if lost > 0 {
			does = fmt.Sprintf("the content of %d would be gone for good", lost)
		}
		if !a.interactive() {
			return nobodyToAsk("it lets go of held files, and " + does)
		}
		_ = render.WriteHolds(a.stderr, a.text(cmd, a.sys.stderr), holds)
		a.say("The keeper lets go of these files, but of no last copy without --accept-loss %s; %s. Type yes:", lossLastCopy, does)
		if err := agreed(ctx, a.stdin); err != nil {
			return err
		}
	}
	done, err := e.KeeperRelease(ctx, holds, last)
	a.stderr.Flush(time.Second)
	return joined(err, a.result(done, func(w io.Writer) error { return render.WriteHolds(w, a.text(cmd, w), done) }))
}
