package recovertest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
)

// The numbers of the NBD protocol that a reader needs
// (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md).
const (
	nbdMagic       = 0x4e42444d41474943 // NBDMAGIC
	nbdOptionMagic = 0x49484156454f5054 // IHAVEOPT
	nbdReplyMagic  = 0x3e889045565a9
	nbdRequest     = 0x25609513
	nbdReply       = 0x67446698

	nbdFixedNewstyle, nbdNoZeroes = 1, 2
	nbdHasFlags, nbdReadOnly      = 1, 2

	nbdOptAbort, nbdOptList, nbdOptInfo, nbdOptGo = 2, 3, 6, 7

	nbdRepAck, nbdRepServer, nbdRepInfo        = 1, 2, 3
	nbdRepUnsupported, nbdRepUnknown           = 1<<31 | 1, 1<<31 | 6
	nbdRead, nbdDisconnect                     = 0, 2
	nbdPermission, nbdIOError                  = 1, 5
	nbdLongestOption, nbdLongestRead    uint32 = 4 << 10, 32 << 20
)

var errNBD = errors.New("not what an NBD client says")

// serveNBD serves files, read-only, each under its name, until the listener is closed.
func serveNBD(l net.Listener, files map[string]*os.File) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			// No error is reported: the client sees the connection end.
			if file, err := nbdHandshake(conn, files); err == nil && file != nil {
				_ = nbdTransmit(conn, file)
			}
		}()
	}
}

// nbdHandshake returns the file that the client chose, nil when it chose none.
func nbdHandshake(conn net.Conn, files map[string]*os.File) (*os.File, error) {
	if err := put(conn, uint64(nbdMagic), uint64(nbdOptionMagic), uint16(nbdFixedNewstyle|nbdNoZeroes)); err != nil {
		return nil, err
	}
	var flags uint32
	if err := get(conn, &flags); err != nil {
		return nil, err
	}
	for {
		var magic uint64
		var option, length uint32
		if err := get(conn, &magic, &option, &length); err != nil {
			return nil, err
		}
		if magic != nbdOptionMagic || length > nbdLongestOption {
			return nil, errNBD
		}
		data := make([]byte, length)
		if _, err := io.ReadFull(conn, data); err != nil {
			return nil, err
		}
		reply := func(kind uint32, data ...byte) error {
			return put(conn, uint64(nbdReplyMagic), option, kind, uint32(len(data)), data)
		}
		var err error
		switch option {
		case nbdOptAbort:
			return nil, reply(nbdRepAck)
		case nbdOptList:
			for name := range files {
				if err == nil {
					err = reply(nbdRepServer, append(binary.BigEndian.AppendUint32(nil, uint32(len(name))), name...)...)
				}
			}
			if err == nil {
				err = reply(nbdRepAck)
			}
		case nbdOptInfo, nbdOptGo:
			file := files[nbdName(data)]
			if file == nil {
				err = reply(nbdRepUnknown)
				break
			}
			if err = nbdDescribe(file, reply); err == nil && option == nbdOptGo {
				return file, nil
			}
		default:
			err = reply(nbdRepUnsupported)
		}
		if err != nil {
			return nil, err
		}
	}
}

// nbdName is the export's name in an option's data.
func nbdName(data []byte) string {
	const head = 4
	if len(data) < head {
		return ""
	}
	length := binary.BigEndian.Uint32(data)
	if uint64(len(data)-head) < uint64(length) {
		return ""
	}
	return string(data[head:][:length])
}

// nbdDescribe tells the size of an export, and that it is read-only.
func nbdDescribe(file *os.File, reply func(kind uint32, data ...byte) error) error {
	st, err := file.Stat()
	if err != nil {
		return err
	}
	info := binary.BigEndian.AppendUint16(nil, 0) // NBD_INFO_EXPORT
	info = binary.BigEndian.AppendUint64(info, uint64(st.Size()))
	info = binary.BigEndian.AppendUint16(info, nbdHasFlags|nbdReadOnly)
	if err := reply(nbdRepInfo, info...); err != nil {
		return err
	}
	return reply(nbdRepAck)
}

// nbdTransmit answers reads until the client disconnects.
func nbdTransmit(conn net.Conn, file *os.File) error {
	for {
		var magic, length uint32
		var flags, kind uint16
		var handle, off uint64
		if err := get(conn, &magic, &flags, &kind, &handle, &off, &length); err != nil {
			return err
		}
		if magic != nbdRequest {
			return errNBD
		}
		var code uint32
		var data []byte
		switch {
		case kind == nbdDisconnect:
			return nil
		case kind != nbdRead:
			code = nbdPermission
		case length > nbdLongestRead:
			return errNBD
		default:
			data = make([]byte, length)
			if _, err := file.ReadAt(data, int64(off)); err != nil {
				code, data = nbdIOError, nil
			}
		}
		if err := put(conn, uint32(nbdReply), code, handle, data); err != nil {
			return err
		}
	}
}

func put(w io.Writer, values ...any) error {
	for _, value := range values {
		if err := binary.Write(w, binary.BigEndian, value); err != nil {
			return err
		}
	}
	return nil
}

func get(r io.Reader, values ...any) error {
	for _, value := range values {
		if err := binary.Read(r, binary.BigEndian, value); err != nil {
			return err
		}
	}
	return nil
}
