package bare

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// The numbers of the NBD protocol that a reader needs:
// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
const (
	nbdMagic        = 0x4e42444d41474943
	nbdOption       = 0x49484156454f5054
	nbdExportName   = 1
	nbdFlags        = 3 // fixed newstyle, no zeroes
	nbdRequestMagic = 0x25609513
	nbdReplyMagic   = 0x67446698
)

// readNBD reads the first size bytes of an export.
func readNBD(ctx context.Context, socket, export string, size uint32) ([]byte, error) {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience.Limit())); err != nil {
		return nil, err
	}
	var hello struct {
		Magic, Option uint64
		Flags         uint16
	}
	if err := binary.Read(c, binary.BigEndian, &hello); err != nil {
		return nil, fmt.Errorf("nbd: %w", err)
	}
	if hello.Magic != nbdMagic || hello.Option != nbdOption {
		return nil, errors.New("nbd: no server of the new style")
	}
	var ask bytes.Buffer
	for _, field := range []any{
		uint32(nbdFlags), uint64(nbdOption), uint32(nbdExportName), uint32(len(export)), []byte(export),
		// Right behind the option, the request: magic, flags, read, cookie, offset, length.
		uint32(nbdRequestMagic), uint16(0), uint16(0), uint64(1), uint64(0), size,
	} {
		_ = binary.Write(&ask, binary.BigEndian, field) // into memory
	}
	if _, err := c.Write(ask.Bytes()); err != nil {
		return nil, fmt.Errorf("nbd: %w", err)
	}
	var reply struct {
		Size   uint64 // of the export
		Flags  uint16
		Magic  uint32
		Error  uint32
		Cookie uint64
	}
	if err := binary.Read(c, binary.BigEndian, &reply); err != nil {
		return nil, fmt.Errorf("nbd: export %s: %w", export, err)
	}
	if reply.Magic != nbdReplyMagic || reply.Error != 0 {
		return nil, fmt.Errorf("nbd: export %s: error %d", export, reply.Error)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(c, data); err != nil {
		return nil, fmt.Errorf("nbd: export %s: %w", export, err)
	}
	return data, nil
}
