package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"syscall"

	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/openstack"
)

// figures lists what is measured, in order.
func figures(o options) []figure {
	return slices.Concat(
		scanFigures(o),
		copyFigures(o),
		guardFigures(o),
		downtimeFigures(o),
		scaleFigures(o),
		fleetFigures(o),
	)
}

// options are those of the command line; sizes in bytes.
type options struct {
	only         *regexp.Regexp
	quick        bool
	dir          string
	bytes        int64
	runs         int
	small, large int64
	liveRuns     int
	downtime     []int64 // the data of guests
	json         string
}

func main() {
	openstack.Begin()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 2 && os.Args[1] == fleetCommand {
		end(runFleet(ctx, os.Args[2], len(os.Args) > 3))
	}
	var o options
	only := flag.String("only", "", "measure only the figures whose name matches this regular expression")
	flag.BoolVar(&o.quick, "quick", false, "small sizes and two turns, unless other flags say so: to see that all works")
	size := flag.Int64("size", 4096, "size of the source of copies in MiB, half of that of the sparse one; quick: 64")
	flag.IntVar(&o.runs, "runs", 5, "turns of each contender of a figure; quick: 2")
	flag.StringVar(&o.dir, "dir", "", "where to work (default: a file system in a file in the system's temporary directory)")
	small := flag.Int64("live-small", 256, "data of the small guest that is rescued live, in MiB; quick: 16")
	large := flag.Int64("live-large", 8192, "data of the large one, in MiB; quick: 256")
	flag.IntVar(&o.liveRuns, "live-runs", 3, "live rescues of each guest for each proof; 0: none; quick: 1")
	sizes := flag.String("downtime", "1024,4096,16384", "data of the guests that are rescued in every way, in MiB; quick: 64")
	flag.StringVar(&o.json, "json", "test/.cache/bench.json", "write every single number to this file")
	flag.Parse()
	lab.Enter(o.dir, filepath.Dir(o.json))
	if o.quick {
		given := map[string]bool{}
		flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range map[string]string{
			"size":       "64",
			"runs":       "2",
			"live-small": "16",
			"live-large": "256",
			"live-runs":  "1",
			"downtime":   "64",
		} {
			if !given[name] {
				_ = flag.Set(name, value)
			}
		}
	}
	o.bytes, o.small, o.large = *size<<20, *small<<20, *large<<20
	var err error
	if o.downtime, err = sizesIn(*sizes); err == nil {
		o.only, err = regexp.Compile(*only)
	}
	if err == nil {
		err = measureAll(ctx, o)
	}
	end(err)
}

// end ends the program.
func end(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// document is the JSON file.
type document struct {
	CPUs    int      `json:"cpus"`
	Quick   bool     `json:"quick,omitempty"`
	Bytes   int64    `json:"bytes"`
	Figures []result `json:"figures"`
	Pauses  []pause  `json:"live_pauses,omitempty"`
}

// measureAll measures every selected figure. If one fails, the others are still measured.
func measureAll(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		return errors.New("this mounts file systems and runs libvirtd: run it as root")
	}
	dir, err := os.MkdirTemp(o.dir, "os-rescue-bench-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	doc := document{CPUs: runtime.NumCPU(), Quick: o.quick, Bytes: o.bytes, Figures: []result{}}
	var failures []error
	for _, f := range figures(o) {
		if !o.only.MatchString(f.Name) || o.runs < 1 || ctx.Err() != nil {
			continue
		}
		if o.quick {
			f.Goal = goal{} // small sizes say nothing about it
		}
		fmt.Fprintln(os.Stderr, "measuring:", f.Name)
		r, err := f.measure(ctx, &bench{dir: dir, bytes: o.bytes, quick: o.quick}, o.runs)
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", f.Name, err))
			continue
		}
		doc.Figures = append(doc.Figures, r)
	}
	if len(doc.Figures) > 0 {
		fmt.Println(render(doc.Figures))
	}
	if o.only.MatchString(pausesName) && o.liveRuns > 0 && ctx.Err() == nil {
		if doc.Pauses, err = measurePauses(ctx, o.small, o.large, o.liveRuns); err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", pausesName, err))
		} else {
			renderPauses(doc.Pauses, o.small, o.large, o.liveRuns)
		}
	}
	return errors.Join(append(failures, ctx.Err(), write(o.json, doc))...)
}

// pausesName selects the suspends of live rescues in -only.
const pausesName = "live rescue: the guest's suspend"

// write writes the numbers.
func write(path string, doc document) error {
	data, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "written:", path)
	return nil
}
