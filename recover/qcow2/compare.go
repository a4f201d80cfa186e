package qcow2

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

var (
	// ErrDiffers: the two disks are not the same to a guest.
	ErrDiffers = errors.New("the disks differ")
	// ErrCompareFailed: qemu-img could not compare the disks. They may or may not be
	// equal.
	ErrCompareFailed = errors.New("qemu-img could not compare the disks")
)

// Member is one image of a chain.
type Member struct {
	File   *os.File
	Format string // "qcow2" or "raw", never probed
}

// Side is one of the two disks of a comparison: either a chain of open images,
// the top one first and the last one without a backing file, or an export over NBD.
type Side struct {
	Chain  []Member
	Socket string // the path of a Unix socket
	Export string // the name of the export there
}

// CompareOptions configure the run of qemu-img.
type CompareOptions struct {
	// Account runs qemu-img: one that may read the images, preferably that of their QEMU.
	Account Account
	// Direct reads the images with O_DIRECT.
	Direct bool
	// Progress, if not nil, is called with the share that is done, 0 to 1.
	Progress func(share float64)
	// MemoryBytes limits qemu-img's address space, 4 GiB when 0. CPUTime limits its
	// CPU time, without limit when 0.
	MemoryBytes int64
	CPUTime     time.Duration
}

// Compare runs `qemu-img compare` on two disks. It reads them as a guest sees them,
// in full except for parts that both sides know to be zero. The caller gives formats
// and chains: nothing is probed, and no name in an image is followed. Compare takes
// none of QEMU's locks, so the images may be open elsewhere, but nobody may write
// them meanwhile. It changes no file's owner. qemu-img is confined as in Check.
//
// Errors: ErrDiffers with the offset of the first difference in bytes, or when the
// sizes differ; ErrNotQcow2, ErrMalformed, ErrExternalData of a member's header;
// ErrNoQemuImg; ErrCompareFailed with qemu-img's own message, or for an encrypted
// image or a format other than qcow2 and raw; the context's.
func Compare(ctx context.Context, a, b Side, opt CompareOptions) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := confined{account: opt.Account, memory: opt.MemoryBytes, cpu: opt.CPUTime}
	defer c.disconnect()
	args := []string{"compare", "-p"}
	if opt.Direct {
		args = append(args, "-T", "none")
	}
	var sizes [2]int64
	for i, side := range []Side{a, b} {
		node, size, err := c.describe(side)
		if err != nil {
			return err
		}
		args = append(args, "json:"+node)
		sizes[i] = size
	}
	// qemu-img would read everything first, and then only warn.
	if sizes[0] != sizes[1] && sizes[0] != unknownSize && sizes[1] != unknownSize {
		return fmt.Errorf("%w: one has %d bytes and the other %d", ErrDiffers, sizes[0], sizes[1])
	}
	cmd, err := c.command(ctx, args...)
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	stderr := &limitedBuffer{limit: 64 << 10}
	cmd.Stderr = stderr
	var words string
	runErr := onItsOwnThread(func() error {
		if err := cmd.Start(); err != nil {
			return err
		}
		words = followProgress(out, opt.Progress)
		return cmd.Wait()
	})
	if err := ctx.Err(); err != nil {
		return err
	}
	return compared(words, stderr.kept.String(), runErr)
}

// unknownSize is the size of a disk that only qemu-img can tell.
const unknownSize = -1

// describe returns a side as JSON for qemu-img, and its size in bytes. It adds the
// side's files to those of the process.
func (c *confined) describe(side Side) (node string, size int64, err error) {
	size = unknownSize
	var top any
	switch {
	case (side.Socket == "") == (len(side.Chain) == 0):
		return "", 0, fmt.Errorf("%w: a side is either a chain or an export", ErrCompareFailed)
	case side.Socket != "":
		conn, err := connect(side.Socket)
		if err != nil {
			return "", 0, fmt.Errorf("%w: %w", ErrCompareFailed, err)
		}
		server := map[string]any{"type": "fd", "str": strconv.Itoa(3 + len(c.files))}
		c.files, c.connections = append(c.files, conn), append(c.connections, conn)
		nbd := map[string]any{"driver": "nbd", "server": server, "export": side.Export}
		top = map[string]any{"driver": "raw", "file": nbd}
	}
	for i := len(side.Chain) - 1; i >= 0; i-- {
		m := side.Chain[i]
		driver, seen, err := m.look()
		if err != nil {
			return "", 0, fmt.Errorf("compare %s: %w", m.File.Name(), err)
		}
		size = seen
		file := map[string]any{
			"driver":   driver,
			"locking":  "off",
			"filename": fmt.Sprintf("/proc/self/fd/%d", 3+len(c.files)),
		}
		c.files = append(c.files, m.File)
		image := map[string]any{"driver": m.Format, "file": file}
		if m.Format == "qcow2" {
			image["backing"] = top
		}
		top = image
	}
	data, err := json.Marshal(top)
	return string(data), size, err
}

// connect returns a connection to a Unix socket. qemu-img gets the connection and not the
// path, which may lead into another mount namespace, where its account can't follow.
func connect(socket string) (*os.File, error) {
	addr := &net.UnixAddr{Name: socket, Net: "unix"}
	conn, err := net.DialUnix("unix", nil, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	f, err := conn.File() // a duplicate
	if err != nil {
		return nil, err
	}
	return f, nil
}

// sector is the unit of QEMU's sizes in bytes.
const sector = 512

// look returns QEMU's driver for the member's file, and the size in bytes that a
// guest would see. It refuses an image that makes qemu-img look for another file or
// for a key.
func (m Member) look() (driver string, size int64, err error) {
	info, err := m.File.Stat()
	if err != nil {
		return "", 0, err
	}
	device := info.Mode()&os.ModeDevice != 0
	driver, length := "file", info.Size()
	if device {
		// The driver "file" refuses devices. The size of one is not in its inode,
		// and an image's header lies within its first cluster.
		driver, length = "host_device", maxHeader
	}
	switch {
	case m.Format == "raw" && device:
		return driver, unknownSize, nil
	case m.Format == "raw":
		return driver, (length + sector - 1) / sector * sector, nil
	case m.Format != "qcow2":
		return "", 0, fmt.Errorf("%w: the format %q", ErrCompareFailed, m.Format)
	}
	header, err := ParseHeader(Aligned{m.File}, length)
	switch {
	case err != nil:
		return "", 0, err
	case header.ExternalData:
		return "", 0, fmt.Errorf("%w: %q", ErrExternalData, header.DataFile)
	case header.Encryption != EncryptionNone:
		return "", 0, fmt.Errorf("%w: it is encrypted", ErrCompareFailed)
	case header.VirtualSize > math.MaxInt64:
		return "", 0, malformed("the disk has %d bytes", header.VirtualSize)
	}
	return driver, int64(header.VirtualSize) / sector * sector, nil
}

// maxLine bounds one line of qemu-img's output in bytes, and all that is kept of it.
const maxLine = 64 << 10

// followProgress passes on the progress as it comes and returns the other lines.
func followProgress(out io.Reader, progress func(float64)) string {
	var others strings.Builder
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, maxLine)
	lines.Split(splitLines)
	for lines.Scan() {
		line := lines.Text()
		share, ok := parseProgress(line)
		switch {
		case ok && progress != nil:
			progress(share)
		case !ok && others.Len() < maxLine:
			others.WriteString(line + "\n")
		}
	}
	_, _ = io.Copy(io.Discard, out) // otherwise qemu-img would wait for a reader
	return others.String()
}

// splitLines is bufio.ScanLines for lines that end in a carriage return too.
func splitLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexAny(data, "\r\n"); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// parseProgress reads "    (12.34/100%)".
func parseProgress(line string) (share float64, ok bool) {
	number, rest, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "("), "/100%)")
	percent, err := strconv.ParseFloat(number, 64)
	if !found || rest != "" || err != nil || !(percent >= 0 && percent <= 100) {
		return 0, false
	}
	return percent / 100, true
}

// compared interprets qemu-img's output and exit code: 0 for equal, 1 for different,
// more for a failure (qemu-img(1), "compare"). The code alone proves nothing:
// prlimit and setpriv end with 1 too when they fail. qemu-img only warns of sizes
// that differ.
func compared(stdout, stderr string, runErr error) error {
	words := strings.Join(strings.Fields(stdout+" "+stderr), " ")
	var exit *exec.ExitError
	verdict := runErr == nil || errors.As(runErr, &exit) && exit.ExitCode() == 1
	switch {
	case verdict && strings.Contains(stdout, "mismatch"):
		return fmt.Errorf("%w: %s", ErrDiffers, words)
	case runErr != nil || !strings.Contains(stdout, "Images are identical"):
		return fmt.Errorf("%w: %s", ErrCompareFailed, reason(words, runErr))
	}
	return nil
}
