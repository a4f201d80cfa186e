package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/render"
	"github.com/os-rescue/os-rescue/recover"
)

// lossLastCopy is what --accept-loss of resume --abandon may name.
const lossLastCopy = "last-copy"

// abandonFlags are the flags of resume that belong to --abandon.
type abandonFlags struct {
	abandon, keep, release bool
	acceptLoss             []string
}

func (f *abandonFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.abandon, "abandon", false, "end the run as it is instead of finishing it; says what it holds and has staged")
	flags.BoolVar(&f.keep, "keep", false, "with --abandon: keep everything that the run holds and has staged (the default)")
	flags.BoolVar(&f.release, "release", false,
		"with --abandon: let go of what the run holds and has staged, but not of the last copy of a lost file")
	flags.StringSliceVar(&f.acceptLoss, "accept-loss", nil, "with --release: "+lossLastCopy+
		" lets go of last copies too: `WHAT` is lost for good")
}

// choice returns what the flags say. asked is true when they leave it to the operator.
func (f *abandonFlags) choice(args []string) (choice recover.AbandonChoice, asked bool, err error) {
	other := slices.ContainsFunc(f.acceptLoss, func(loss string) bool { return loss != lossLastCopy })
	switch {
	case !f.abandon && (f.keep || f.release || len(f.acceptLoss) > 0):
		err = fmt.Errorf("%w: --keep, --release and --accept-loss say what --abandon does: add --abandon", recover.ErrUsage)
	case f.abandon && len(args) == 0:
		err = fmt.Errorf("%w: name the run that is to be ended: os-rescue resume --abandon RUN", recover.ErrUsage)
	case f.keep && f.release:
		err = fmt.Errorf("%w: --keep and --release exclude each other", recover.ErrUsage)
	case other:
		err = fmt.Errorf("%w: --accept-loss is %s: it must be %s", recover.ErrUsage, strings.Join(f.acceptLoss, ","), lossLastCopy)
	case len(f.acceptLoss) > 0 && !f.release:
		err = fmt.Errorf("%w: --accept-loss %s is for --release: without it everything is kept", recover.ErrUsage, lossLastCopy)
	}
	return recover.AbandonChoice{Release: f.release, Last: len(f.acceptLoss) > 0}, !f.keep && !f.release, err
}

// abandonRun ends a run by hand: it shows what the run holds, asks, and does it.
func abandonRun(ctx context.Context, a *app, cmd *cobra.Command, e opened, run string, f resumeFlags) error {
	choice, open, err := f.choice([]string{run})
	if err != nil {
		return err
	}
	s, err := e.PrepareAbandon(ctx, run, f.offline)
	if err != nil {
		return err
	}
	defer s.Close()
	plan := s.Plan()
	nothing := plan.Finished && (len(plan.Instances) == 0 || !choice.Release && (!open || f.yes))
	if !f.yes && !nothing {
		if !a.interactive() {
			return nobodyToAsk("it ends run " + plan.Run + " as it is")
		}
		_ = render.WriteAbandonment(a.stderr, a.text(cmd, a.sys.stderr), plan)
		if choice, err = askAbandon(ctx, a, choice, open); err != nil {
			return err
		}
	}
	done, err := s.Execute(ctx, choice)
	a.stderr.Flush(time.Second)
	written := a.result(done, func(w io.Writer) error { return render.WriteAbandonment(w, a.text(cmd, w), done) })
	return joined(err, written)
}

// askAbandon asks for consent; when the flags have left it open, also for the choice.
func askAbandon(ctx context.Context, a *app, choice recover.AbandonChoice, open bool) (recover.AbandonChoice, error) {
	if !open {
		does := "keep all of it"
		switch {
		case choice.Last:
			does = "let go of all of it, last copies too, which are lost for good then"
		case choice.Release:
			does = "let go of all but the last copies"
		}
		a.prompt("\nType yes to end the run and %s: ", does)
		return choice, agreed(ctx, a.stdin)
	}
	a.prompt("\nType keep to end the run and keep all of it, release to let go of all but the last copies: ")
	said, err := answer(ctx, a.stdin)
	switch {
	case err != nil:
		return choice, err
	case said == "keep":
		return choice, nil
	case said == "release":
		choice.Release = true
		return choice, nil
	}
	return choice, errDeclined
}

// answer waits for a line. It returns the context's cause if that ends first.
func answer(ctx context.Context, in *bufio.Reader) (string, error) {
	said := make(chan string, 1)
	go func() { // a read can't be interrupted; the process ends soon in any case
		line, _ := in.ReadString('\n')
		said <- strings.TrimSpace(line)
	}()
	select {
	case s := <-said:
		return s, nil
	case <-ctx.Done():
		return "", fmt.Errorf("nothing was changed: %w", context.Cause(ctx))
	}
}
