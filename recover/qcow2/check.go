package qcow2

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

var (
	// ErrNoQemuImg: qemu-img, or the tools that confine it, are not installed.
	ErrNoQemuImg = errors.New("qemu-img, prlimit and setpriv are needed to check an image, and at least one of them is not installed")
	// ErrExternalData: the image keeps its data in another file, which qemu-img
	// would open by a name that the guest may have written. qemu-img was not run.
	ErrExternalData = errors.New("the image names an external data file")
	// ErrCheckFailed: qemu-img could not check the image, or was killed by a limit.
	// The image may or may not be good.
	ErrCheckFailed = errors.New("qemu-img could not check the image")
	// ErrStopped: a signal or a limit ended qemu-img in the middle, which says nothing
	// of the image. It wraps ErrCheckFailed.
	ErrStopped = fmt.Errorf("%w: it was stopped in the middle, by a limit or a fault of its own", ErrCheckFailed)
	// ErrTouched: somebody has changed the image while it was checked.
	ErrTouched = errors.New("the image was changed while it was checked")
)

// CheckOptions configure the run of qemu-img. The zero value is usable.
type CheckOptions struct {
	// InService is the account of the suspended QEMU that has the image open, and whose it
	// is. qemu-img runs as that, Check takes no lock and leaves the file alone. nil: it is a
	// copy that nobody else has.
	InService *Account
	// Direct reads the image with O_DIRECT, for file systems on which buffered reads
	// may return old content.
	Direct bool
	// MemoryBytes limits qemu-img's address space, CPUTime its CPU time;
	// 4 GiB and 15 minutes when 0.
	MemoryBytes int64
	CPUTime     time.Duration
}

// CheckResult is the result of qemu-img check.
type CheckResult struct {
	Skipped     string // why the image was not checked; "" if it was
	Corruptions int64  // errors in the structure that can lose or mix up data
	// StaleRefcounts is the number of findings that are no corruption: a QEMU that has an
	// image with lazy_refcounts open writes its refcounts only when it closes the image, and
	// one that opens it afterwards counts them anew ("Dirty bit", docs/interop/qcow2.txt).
	StaleRefcounts int64
	Leaks          int64 // clusters that are allocated but unused: wasted space, no lost data
	CheckErrors    int64 // checks that failed
	// ImageEnd is the end of the last cluster in use, in bytes from the start of the
	// file.
	ImageEnd int64
}

// Corrupt reports whether the image must not be trusted. Leaks do no harm.
func (r CheckResult) Corrupt() bool { return r.Corruptions > 0 || r.CheckErrors > 0 }

// Check runs `qemu-img check` on an open qcow2 image, without repair. f is a
// regular file open for reading; its content is as untrusted as its guest, so:
//
//   - the header is parsed first, and an external data file is refused;
//   - the format is given and the backing chain is cut
//     (`"backing": null`, blockdev-add in QEMU's qapi/block-core.json), so that
//     no other file is opened, and missing backing files don't matter;
//   - qemu-img gets the file as descriptor 3 and runs without capabilities, as a user and a
//     group that no other process has, in network and IPC namespaces of its own, with
//     no_new_privs, few system calls, an empty environment and limits on memory, CPU time and
//     files. It dies with this process and with the context.
//
// qemu-img opens /proc/self/fd/3 afresh, which needs permission on the inode. So Check lets
// that group read the file meanwhile, and nobody ever gets a descriptor that writes it: f is
// a private copy with mode 0600 whose owner is root. Owner, group, mode and access control list
// are as before when it returns; after a crash of this process the group may still be one that
// nobody is in. Where the file system allows no such change the check is skipped.
//
// Corruption is a result, not an error. Refcounts that are too low are none while the
// image's dirty bit is set: QEMU has it open, or did not close it. An encrypted image is skipped, because its
// key is not known here, and so is one with features that are not known here. Errors:
// ErrNotQcow2, ErrMalformed, ErrExternalData, ErrNoQemuImg, ErrCheckFailed, ErrStopped,
// ErrTouched, the context's.
func Check(ctx context.Context, f *os.File, opt CheckOptions) (CheckResult, error) {
	info, err := f.Stat()
	if err != nil {
		return CheckResult{}, err
	}
	header, err := ParseHeader(Aligned{f}, info.Size())
	if err != nil {
		return CheckResult{}, fmt.Errorf("check %s: %w", f.Name(), err)
	}
	if header.ExternalData {
		return CheckResult{}, fmt.Errorf("check %s: %w: %q", f.Name(), ErrExternalData, header.DataFile)
	}
	if header.Encryption != EncryptionNone {
		return CheckResult{Skipped: "the image is encrypted"}, nil
	}
	if unknown := header.UnknownFeatures(); unknown != 0 {
		return CheckResult{Skipped: fmt.Sprintf("it has features (%#x) that this release does not know, of a later QEMU", unknown)}, nil
	}
	var result CheckResult
	if opt.InService != nil {
		result, err = runCheck(ctx, f, header, *opt.InService, opt)
	} else {
		result, err = checkLent(ctx, f, header, opt)
	}
	if err != nil {
		return CheckResult{}, fmt.Errorf("check %s: %w", f.Name(), err)
	}
	zerolog.Ctx(ctx).Debug().Str("image", f.Name()).Any("result", result).Msg("qemu-img check")
	return result, nil
}

// checkLent lends the file for the check, and looks whether it was changed meanwhile.
func checkLent(ctx context.Context, f *os.File, header Header, opt CheckOptions) (result CheckResult, err error) {
	account, err := unusedAccount()
	if err != nil {
		return CheckResult{}, fmt.Errorf("%w: %w", ErrCheckFailed, err)
	}
	giveBack, err := lend(f, account.GID)
	if cantBeLent(err) {
		_ = giveBack() // as far as it was changed at all
		return CheckResult{Skipped: fmt.Sprintf("the file system lets nobody else read it for that (%v)", err)}, nil
	}
	defer func() { err = errors.Join(err, giveBack()) }()
	if err != nil {
		return CheckResult{}, err
	}
	before, err := stateOf(f)
	if err != nil {
		return CheckResult{}, err
	}
	if result, err = runCheck(ctx, f, header, account, opt); err != nil {
		return CheckResult{}, err
	}
	after, err := stateOf(f)
	if err == nil && after != before {
		err = ErrTouched
	}
	return result, err
}

// runCheck runs the check and leaves the file as it is.
func runCheck(ctx context.Context, f *os.File, header Header, account Account, opt CheckOptions) (CheckResult, error) {
	args := []string{"check", "--output=json"}
	if opt.Direct {
		args = append(args, "-T", "none")
	}
	node := map[string]any{"driver": "file", "filename": "/proc/self/fd/3"}
	if opt.InService != nil {
		node["locking"] = "off"
	}
	image, err := json.Marshal(map[string]any{"driver": "qcow2", "file": node, "backing": nil})
	if err != nil {
		return CheckResult{}, err
	}
	if opt.CPUTime == 0 {
		opt.CPUTime = 15 * time.Minute
	}
	c := confined{account: account, memory: opt.MemoryBytes, cpu: opt.CPUTime, files: []*os.File{f}}
	cmd, err := c.command(ctx, append(args, "json:"+string(image))...)
	if err != nil {
		return CheckResult{}, err
	}
	stdout, stderr := &limitedBuffer{limit: 1 << 20}, &limitedBuffer{limit: 64 << 10}
	findings := &refcountFindings{rest: stderr, shared: header.Snapshots > 0}
	cmd.Stdout, cmd.Stderr = stdout, findings

	runErr := onItsOwnThread(cmd.Run)
	if err := ctx.Err(); err != nil {
		return CheckResult{}, err
	}
	result, err := parse(stdout.kept.Bytes(), stderr.kept.String(), runErr)
	if err == nil && header.Dirty {
		result.StaleRefcounts = min(findings.stale, result.Corruptions)
		result.Corruptions -= result.StaleRefcounts
	}
	return result, err
}

// parse interprets qemu-img's report and exit code: 0 for clean, 2 for corruption,
// 3 for leaks only, 1 when the check itself failed (qemu-img(1), "check").
func parse(stdout []byte, stderr string, runErr error) (CheckResult, error) {
	var exit *exec.ExitError
	if runErr != nil && !errors.As(runErr, &exit) {
		return CheckResult{}, fmt.Errorf("%w: %w", ErrCheckFailed, runErr)
	}
	var report struct {
		Filename    *string `json:"filename"`
		Corruptions int64   `json:"corruptions"`
		Leaks       int64   `json:"leaks"`
		CheckErrors int64   `json:"check-errors"`
		ImageEnd    int64   `json:"image-end-offset"`
	}
	if exit != nil && !exit.Exited() {
		return CheckResult{}, fmt.Errorf("%w: %s", ErrStopped, reason(stderr, runErr))
	}
	err := json.Unmarshal(stdout, &report)
	if err != nil || report.Filename == nil {
		return CheckResult{}, fmt.Errorf("%w: %s", ErrCheckFailed, reason(stderr, runErr))
	}
	r := CheckResult{
		Corruptions: report.Corruptions,
		Leaks:       report.Leaks,
		CheckErrors: report.CheckErrors,
		ImageEnd:    report.ImageEnd,
	}
	if exit == nil || r.Corrupt() || (exit.ExitCode() == 3 && r.Leaks > 0) {
		return r, nil
	}
	return CheckResult{}, fmt.Errorf("%w: %s", ErrCheckFailed, reason(stderr, runErr))
}

func reason(stderr string, runErr error) string {
	text := strings.Join(strings.Fields(stderr), " ")
	if runErr != nil {
		text = strings.TrimSpace(runErr.Error() + ": " + text)
	}
	return text
}

// limitedBuffer keeps the first bytes of an output and drops the rest: for a broken
// image qemu-img can print a line for every cluster.
type limitedBuffer struct {
	kept  bytes.Buffer
	limit int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.kept.Write(p[:min(len(p), b.limit-b.kept.Len())])
	return len(p), nil
}
