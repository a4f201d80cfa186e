package copier

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// dataSpans returns the spans of src that hold data, widened to the alignment that
// O_DIRECT needs. If the file system can't tell, the rest of the file is data.
func dataSpans(src *os.File, st stat) func() (span, error) {
	var extent span
	return func() (span, error) {
		if extent.off >= extent.end {
			if extent.end >= st.size {
				return span{}, io.EOF
			}
			var err error
			if extent, err = nextExtent(src, st, extent.end); err != nil {
				return span{}, err
			}
		}
		sp := span{off: extent.off, end: min(extent.off+st.chunk(), extent.end)}
		extent.off = sp.end
		return sp, nil
	}
}

// nextExtent returns the first extent of data at or after from; io.EOF when there
// is none.
func nextExtent(src *os.File, st stat, from int64) (span, error) {
	rest := span{off: from, end: roundUp(st.size, st.align())}
	start, err := seek(src, from, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return span{}, io.EOF
	}
	if err != nil {
		return rest, nil //nolint:nilerr // the file system shows no holes: all is data
	}
	end, err := seek(src, start, unix.SEEK_HOLE)
	if err != nil || end <= start {
		return rest, nil //nolint:nilerr // as above
	}
	return span{off: max(from, roundDown(start, st.align())), end: min(roundUp(end, st.align()), rest.end)}, nil
}

func seek(f *os.File, off int64, whence int) (int64, error) {
	for {
		pos, err := unix.Seek(int(f.Fd()), off, whence)
		if err != unix.EINTR {
			return pos, err
		}
	}
}
