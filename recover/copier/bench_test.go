package copier_test

import (
	"crypto/rand"
	"io"
	"os"
	"strconv"
	"testing"

	"github.com/os-rescue/os-rescue/recover/copier"
)

// BenchmarkCopyCompare copies and compares random data in a deleted file;
// OS_RESCUE_BENCH_MIB is its size in MiB, 256 unless set.
func BenchmarkCopyCompare(b *testing.B) {
	size := int64(256)
	if s := os.Getenv("OS_RESCUE_BENCH_MIB"); s != "" {
		var err error
		if size, err = strconv.ParseInt(s, 10, 64); err != nil {
			b.Fatal(err)
		}
	}
	for _, kind := range []string{xfsReflink, xfsNoReflink} {
		b.Run(kind, func(b *testing.B) {
			dir := mount(b, kind, 2*size+512)
			src := deleted(b, dir, true, func(f *os.File) {
				if _, err := io.CopyN(f, rand.Reader, size*mib); err != nil {
					b.Fatal(err)
				}
			})
			b.SetBytes(size * mib)
			for b.Loop() {
				dst := target(b, dir)
				result, err := copier.Copy(b.Context(), dst, src, copier.CopyOptions{Prove: true})
				must(b, err)
				if !result.Proven {
					_, err = copier.Compare(b.Context(), src, dst, copier.CompareOptions{})
					must(b, err)
				}
				must(b, dst.Close())
				must(b, os.Remove(dst.Name()))
			}
		})
	}
}
