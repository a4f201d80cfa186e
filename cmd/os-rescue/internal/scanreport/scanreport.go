package scanreport

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/plainfile"
)

// mostBytes is more than the scans of a hundred hosts take, in bytes.
const mostBytes = 64 << 20

// Read reads scans of other hosts from files, as JSON documents one after the other;
// "-" is stdin. No host may occur twice. recover.ErrUsage names the file and the
// mistake in it.
func Read(paths []string, stdin io.Reader) ([]recover.Report, error) {
	var all []recover.Report
	for _, path := range paths {
		reports, err := readFile(path, stdin)
		if err != nil {
			return nil, fmt.Errorf("%w: --scan-report %s: %w", recover.ErrUsage, path, err)
		}
		for _, r := range reports {
			if slices.ContainsFunc(all, func(other recover.Report) bool { return other.Host == r.Host }) {
				return nil, fmt.Errorf("%w: --scan-report %s: there are two scans of host %s: give only the newest", recover.ErrUsage, path, r.Host)
			}
			all = append(all, r)
		}
	}
	return all, nil
}

func readFile(path string, stdin io.Reader) ([]recover.Report, error) {
	if path == "-" {
		return parse(stdin, mostBytes)
	}
	f, err := plainfile.Open(path, plainfile.Rules{Symlinks: true})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(f, mostBytes)
}

// parse reads one scan or more. It refuses everything that "os-rescue scan" does not
// write, because no instance may be rebooted by a report that is not understood in
// full, and input of most bytes or more.
func parse(r io.Reader, most int64) ([]recover.Report, error) {
	limited := &io.LimitedReader{R: r, N: most}
	d := json.NewDecoder(limited)
	d.DisallowUnknownFields()
	var reports []recover.Report
	for {
		var report recover.Report
		err := d.Decode(&report)
		switch {
		case limited.N <= 0:
			return nil, errors.New("it is too large for a scan")
		case errors.Is(err, io.EOF) && len(reports) > 0:
			return reports, nil
		case errors.Is(err, io.EOF):
			return nil, errors.New("it is empty: it must be what os-rescue scan --output json writes")
		case err != nil:
			return nil, fmt.Errorf("it is not what os-rescue scan --output json of this version writes: %w", err)
		}
		if err := check(report); err != nil {
			return nil, err
		}
		reports = append(reports, report)
	}
}

func check(r recover.Report) error {
	if r.Host == "" || r.Taken.IsZero() || r.Instances == nil {
		return errors.New("it is no scan: host, taken or instances is missing")
	}
	seen := map[string]bool{}
	for _, i := range r.Instances {
		known := slices.Contains([]recover.Verdict{
			recover.VerdictIntact, recover.VerdictRecoverable, recover.VerdictDisplaced, recover.VerdictConflict,
			recover.VerdictLost, recover.VerdictUnaffected, recover.VerdictUnknown,
		}, i.Verdict)
		if !known {
			return fmt.Errorf("the verdict on %s is %q, which no scan has", i.Domain, i.Verdict)
		}
		if i.UUID == "" || i.Domain == "" || seen[i.UUID] {
			return fmt.Errorf("an instance (UUID %q, domain %q) has no UUID, no domain, or is there twice", i.UUID, i.Domain)
		}
		seen[i.UUID] = true
	}
	return nil
}
