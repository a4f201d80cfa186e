// Command bench measures os-rescue beside the ordinary tools that do the same
// work, in the same run on the same file system, and prints a table.
//
//	bench [-size MIB] [-runs N] [-dir DIR] [-json FILE] [-live-small MIB] [-live-large MIB] [-live-runs N]
//
// It works in the lab's private namespaces. It makes a file system on a loop device with direct I/O in a temporary
// directory under -dir, so it needs root and twice to three times the size free
// there. Each figure runs N times, alternating with its peer, the source's pages
// dropped from the page cache before each run. The ratio is the peer's median
// time divided by ours: above 1, os-rescue is faster. Then it measures how long
// guests with little and with much data are suspended by a live rescue.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/os-rescue/os-rescue/test/lab"
)

// figure is one thing measured beside its peer.
type figure struct {
	Name, Peer string
	// setup makes what both need; what it returns undoes it.
	setup func(ctx context.Context, b *bench) (cleanup func(), err error)
	// before runs unmeasured before every run of ours and of peer.
	before     func(ctx context.Context, b *bench) error
	ours, peer func(ctx context.Context, b *bench) error
}

// figures lists what is measured, in order.
func figures() []figure {
	return []figure{
		scanFigure(),
		copyFigure("copy and compare, no reflink", "cp --sparse=always; cmp", false, peerCopyCompare),
		copyFigure("the same, on disk when done", "cp --sparse=always; sync FILE; cmp", false, peerCopySyncCompare),
		copyFigure("copy, reflink (its own proof)", "cp --reflink=always", true, peerReflink),
	}
}

// bench is what the figures share.
type bench struct {
	dir   string // for scratch files
	bytes int64  // size of the source

	source *os.File // the deleted file, still open
	mount  string   // of the file system under test
}

// result is one line of the table.
type result struct {
	Name        string    `json:"name"`
	Peer        string    `json:"peer"`
	Ours        []float64 `json:"ours_seconds"`
	Peers       []float64 `json:"peer_seconds"`
	OursMedian  float64   `json:"ours_median_seconds"`
	PeersMedian float64   `json:"peer_median_seconds"`
	Ratio       float64   `json:"ratio"`
}

func main() {
	lab.Enter()
	size := flag.Int64("size", 1024, "size of the source in MiB")
	runs := flag.Int("runs", 5, "runs of each figure; 0: none")
	dir := flag.String("dir", "", "where to work (default: the system's temporary directory)")
	small := flag.Int64("live-small", 256, "data of the small guest that is rescued live, in MiB")
	large := flag.Int64("live-large", 8192, "data of the large one, in MiB")
	liveRuns := flag.Int("live-runs", 3, "live rescues of each guest for each proof; 0: none")
	out := flag.String("json", "", "also write the figures to this file as JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	f := flags{dir: *dir, bytes: *size << 20, runs: *runs, small: *small << 20, large: *large << 20, liveRuns: *liveRuns, out: *out}
	if err := run(ctx, f); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// flags are what the command line says; sizes in bytes.
type flags struct {
	dir          string
	bytes        int64
	runs         int
	small, large int64
	liveRuns     int
	out          string
}

func run(ctx context.Context, f flags) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("this mounts a file system: run it as root")
	}
	dir, err := os.MkdirTemp(f.dir, "os-rescue-bench-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	results := []result{}
	if f.runs > 0 {
		for _, fig := range figures() {
			r, err := measure(ctx, fig, &bench{dir: dir, bytes: f.bytes}, f.runs)
			if err != nil {
				return fmt.Errorf("%s: %w", fig.Name, err)
			}
			results = append(results, r)
		}
		render(results, f.bytes, f.runs)
	}
	pauses := []pause{}
	if f.liveRuns > 0 {
		if pauses, err = measurePauses(ctx, f.small, f.large, f.liveRuns); err != nil {
			return err
		}
		renderPauses(pauses, f.small, f.large, f.liveRuns)
	}
	if f.out == "" {
		return nil
	}
	data, err := json.MarshalIndent(map[string]any{"bytes": f.bytes, "runs": f.runs, "figures": results,
		"live_small_bytes": f.small, "live_large_bytes": f.large, "live_pauses": pauses}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(f.out, append(data, '\n'), 0o644)
}

func measure(ctx context.Context, f figure, b *bench, runs int) (result, error) {
	cleanup, err := f.setup(ctx, b)
	if err != nil {
		return result{}, err
	}
	defer cleanup()
	r := result{Name: f.Name, Peer: f.Peer}
	for range runs {
		for _, side := range []struct {
			do      func(context.Context, *bench) error
			seconds *[]float64
		}{{f.ours, &r.Ours}, {f.peer, &r.Peers}} {
			if err := f.before(ctx, b); err != nil {
				return result{}, err
			}
			start := time.Now()
			if err := side.do(ctx, b); err != nil {
				return result{}, err
			}
			*side.seconds = append(*side.seconds, time.Since(start).Seconds())
		}
	}
	r.OursMedian, r.PeersMedian = median(r.Ours), median(r.Peers)
	r.Ratio = r.PeersMedian / r.OursMedian
	return r, nil
}

func median(seconds []float64) float64 {
	s := slices.Sorted(slices.Values(seconds))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func render(results []result, bytes int64, runs int) {
	t := table.NewWriter()
	t.SetTitle("%d MiB of random data in a deleted file, median of %d runs", bytes>>20, runs)
	t.AppendHeader(table.Row{"figure", "os-rescue", "peer", "peer's time", "ratio"})
	for _, r := range results {
		t.AppendRow(table.Row{r.Name, fmt.Sprintf("%.4f s", r.OursMedian), r.Peer,
			fmt.Sprintf("%.4f s", r.PeersMedian), fmt.Sprintf("%.2f", r.Ratio)})
	}
	fmt.Println(t.Render())
}
