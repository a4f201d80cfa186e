package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

var (
	// ErrNotQcow2: the content does not start with qcow2's magic number.
	ErrNotQcow2 = errors.New("not a qcow2 image")
	// ErrMalformed: the header breaks the rules of the format.
	ErrMalformed = errors.New("malformed qcow2 header")
)

// Encryption is how an image's clusters are encrypted.
type Encryption uint32

// The methods of docs/interop/qcow2.txt, "crypt_method".
const (
	EncryptionNone Encryption = 0
	EncryptionAES  Encryption = 1
	EncryptionLUKS Encryption = 2
)

// Header is the header of an image. Its names are as in the image: the guest may
// have chosen them, so they are for showing and comparing, never for opening.
type Header struct {
	Version     uint32 // 2 or 3
	ClusterBits uint32 // a cluster is 1<<ClusterBits bytes: 9 to 21
	VirtualSize uint64 // in bytes, as the guest sees the disk
	Encryption  Encryption

	BackingFile   string // "" when there is none
	BackingFormat string // "" when the image does not say

	// ExternalData is true when the guest's data is in another file, which QEMU
	// opens with the image; DataFile is its name, "" when the image does not say.
	ExternalData bool
	DataFile     string

	Dirty   bool // refcounts may be wrong (lazy refcounts): normal while QEMU has the image open
	Corrupt bool // QEMU found corruption and will not write to it before a repair

	LazyRefcounts bool   // QEMU writes refcounts only when it closes the image
	RefcountBits  uint32 // of each refcount: 1 to 64

	Snapshots uint32 // internal snapshots
	Bitmaps   bool   // persistent dirty bitmaps, of incremental backups

	IncompatibleFeatures uint64 // all bits, known or not
	Length               uint32 // of the header proper, in bytes
}

const (
	magic         = "QFI\xfb"
	lengthV2      = 72
	lengthV3      = 104
	maxBacking    = 1023
	maxHeader     = 1 << 21 // the largest cluster: the header lies in the first one
	maxExtensions = 256

	extensionEnd           = 0
	extensionBackingFormat = 0xe2792aca
	extensionDataFile      = 0x44415441
	extensionBitmaps       = 0x23852875

	incompatibleDirty    = 1 << 0
	incompatibleCorrupt  = 1 << 1
	incompatibleDataFile = 1 << 2

	compatibleLazyRefcounts = 1 << 0
)

// knownIncompatible are all incompatible features that QEMU has defined: the three above,
// the compression type and extended L2 entries (docs/interop/qcow2.txt).
const knownIncompatible = 1<<5 - 1

// UnknownFeatures returns the incompatible features of the image that only a later QEMU
// knows; 0 when there are none. An older one, and its qemu-img, refuse to open it.
func (h Header) UnknownFeatures() uint64 { return h.IncompatibleFeatures &^ knownIncompatible }

// ParseHeader reads the header of an image of size bytes. It reads at most the
// first cluster (2 MiB) and opens nothing. Errors: ErrNotQcow2, ErrMalformed, those
// of r.
func ParseHeader(r io.ReaderAt, size int64) (Header, error) {
	fixed, err := readUpTo(r, lengthV3, size)
	if err != nil {
		return Header{}, err
	}
	if !bytes.HasPrefix(fixed, []byte(magic)) {
		return Header{}, ErrNotQcow2
	}
	if len(fixed) < lengthV2 {
		return Header{}, malformed("it ends after %d bytes", len(fixed))
	}
	be := binary.BigEndian
	h := Header{
		Version:     be.Uint32(fixed[4:]),
		ClusterBits: be.Uint32(fixed[20:]),
		VirtualSize: be.Uint64(fixed[24:]),
		Encryption:  Encryption(be.Uint32(fixed[32:])),
		Snapshots:   be.Uint32(fixed[60:]),
		Length:      lengthV2,

		RefcountBits: 16,
	}
	if h.ClusterBits < 9 || h.ClusterBits > 21 {
		return Header{}, malformed("cluster_bits is %d", h.ClusterBits)
	}
	switch h.Version {
	case 2:
	case 3:
		if len(fixed) < lengthV3 {
			return Header{}, malformed("it ends after %d bytes", len(fixed))
		}
		h.IncompatibleFeatures = be.Uint64(fixed[72:])
		h.LazyRefcounts = be.Uint64(fixed[80:])&compatibleLazyRefcounts != 0
		order := be.Uint32(fixed[96:])
		if order > 6 {
			return Header{}, malformed("refcount_order is %d", order)
		}
		h.RefcountBits = 1 << order
		h.Length = be.Uint32(fixed[100:])
	default:
		return Header{}, malformed("version %d", h.Version)
	}
	h.Dirty = h.IncompatibleFeatures&incompatibleDirty != 0
	h.Corrupt = h.IncompatibleFeatures&incompatibleCorrupt != 0
	h.ExternalData = h.IncompatibleFeatures&incompatibleDataFile != 0

	cluster, err := readUpTo(r, 1<<h.ClusterBits, size)
	if err != nil {
		return Header{}, err
	}
	if h.Version == 3 && (h.Length < lengthV3 || h.Length%8 != 0 || int64(h.Length) > int64(len(cluster))) {
		return Header{}, malformed("header_length is %d", h.Length)
	}
	end := uint64(len(cluster))
	if offset, length := be.Uint64(fixed[8:]), uint64(be.Uint32(fixed[16:])); offset != 0 {
		if offset < uint64(h.Length) || offset > end || length > maxBacking || length > end-offset {
			return Header{}, malformed("the backing file's name has %d bytes at offset %d", length, offset)
		}
		h.BackingFile = string(cluster[offset : offset+length])
		end = offset // QEMU looks for extensions only up to the name
	}
	err = h.parseExtensions(cluster[h.Length:end])
	return h, err
}

// parseExtensions reads the header extensions: type, length, data padded to 8 bytes.
func (h *Header) parseExtensions(data []byte) error {
	for range maxExtensions {
		if len(data) < 8 {
			return nil
		}
		kind, length := binary.BigEndian.Uint32(data), int64(binary.BigEndian.Uint32(data[4:]))
		data = data[8:]
		if kind == extensionEnd {
			return nil
		}
		if length > int64(len(data)) {
			return malformed("a header extension (%#x) has %d bytes where %d are left", kind, length, len(data))
		}
		switch kind {
		case extensionBackingFormat:
			h.BackingFormat = string(data[:length])
		case extensionBitmaps:
			h.Bitmaps = true
		case extensionDataFile:
			h.DataFile = string(data[:length])
		}
		data = data[min((length+7)/8*8, int64(len(data))):]
	}
	return malformed("more than %d header extensions", maxExtensions)
}

// readUpTo reads the first n bytes, or all if there are fewer.
func readUpTo(r io.ReaderAt, n, size int64) ([]byte, error) {
	data := make([]byte, max(0, min(n, size, maxHeader)))
	got, err := r.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the image's header: %w", err)
	}
	return data[:got], nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}
