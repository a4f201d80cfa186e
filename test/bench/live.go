package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/os-rescue/os-rescue/test/lab"
)

// pause is how long a guest was suspended in its live rescue, by the data on its
// disk and the kind of proof.
type pause struct {
	Proof       string    `json:"proof"`
	Small       []float64 `json:"small_seconds"`
	Large       []float64 `json:"large_seconds"`
	SmallMedian float64   `json:"small_median_seconds"`
	LargeMedian float64   `json:"large_median_seconds"`
	// Ratio is the pause with the large disk, divided by that with the small one.
	Ratio float64 `json:"ratio"`
}

// guestRoom is the space in bytes that a live rescue needs beside its disk and the
// mirror.
const guestRoom = 4 << 30

// measurePauses rescues two guests live in turns, one with little data and one
// with much, for each proof.
func measurePauses(ctx context.Context, small, large int64, runs int) (pauses []pause, err error) {
	s := &scene{ctx: ctx}
	defer s.Close()
	err = s.try(func() {
		l := lab.New(s, lab.Options{Size: 3*(small+large) + guestRoom})
		s.binary = l.Binary(s)
		var guests []*lab.Instance
		for _, size := range []int64{small, large} {
			g := l.Define(s, lab.Spec{Swap: "raw", LogAppend: true})
			if err := random(filepath.Join(g.Dir, "disk.swap"), size); err != nil {
				s.Fatalf("%v", err)
			}
			g.Start(s)
			g.WaitBoot(s, 1)
			guests = append(guests, g)
		}
		for _, proof := range []string{"running", "full", "structure"} {
			p := pause{Proof: proof}
			for range runs {
				l.DeleteTree(s)
				for n, seconds := range []*[]float64{&p.Small, &p.Large} {
					took, err := s.rescueLive(guests[n].UUID, proof)
					if err != nil {
						s.Fatalf("%v", err)
					}
					*seconds = append(*seconds, took)
				}
			}
			p.SmallMedian, p.LargeMedian = median(p.Small), median(p.Large)
			p.Ratio = p.LargeMedian / p.SmallMedian
			pauses = append(pauses, p)
		}
	})
	return pauses, err
}

// random fills a disk with data in which nothing is zero.
func random(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{1}), size); err != nil {
		return err
	}
	return f.Sync()
}

// rescueLive rescues one guest and returns how long it was suspended.
func (s *scene) rescueLive(uuid, proof string) (seconds float64, err error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(s.ctx, s.binary,
		"--instance", uuid, "--offline", "--mode", "live", "--verify", proof, "--yes", "--output", "json")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("a live rescue: %w\n%s%s", err, out, stderr.Bytes())
	}
	var report struct {
		Instances []struct {
			Verified     string  `json:"verified"`
			PauseSeconds float64 `json:"pause_seconds"`
		} `json:"instances"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return 0, err
	}
	if len(report.Instances) != 1 || report.Instances[0].Verified != proof {
		return 0, fmt.Errorf("a live rescue was not proven by %s: %s", proof, out)
	}
	return report.Instances[0].PauseSeconds, nil
}

func renderPauses(pauses []pause, small, large int64, runs int) {
	t := table.NewWriter()
	t.SetTitle("live rescue: the guest's suspend, median of %d runs", runs)
	t.AppendHeader(table.Row{"proof", fmt.Sprintf("%d MiB of data", small>>20), fmt.Sprintf("%d MiB of data", large>>20), "ratio"})
	for _, p := range pauses {
		t.AppendRow(table.Row{p.Proof, fmt.Sprintf("%.3f s", p.SmallMedian), fmt.Sprintf("%.3f s", p.LargeMedian), fmt.Sprintf("%.1f", p.Ratio)})
	}
	fmt.Println(t.Render())
}
