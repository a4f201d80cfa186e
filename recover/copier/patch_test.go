package copier_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/os-rescue/os-rescue/recover/copier"
)

func TestAPatchMakesACopyWhatItsSourceWasOfWhateverIsLeftOfIt(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, f *os.File){
		"nothing":         func(*testing.T, *os.File) {},
		"some bytes":      func(t *testing.T, f *os.File) { write(t, f, 3*mib+5, []byte("the last word")) },
		"zeros":           func(t *testing.T, f *os.File) { write(t, f, 0, make([]byte, mib+7)) },
		"behind the end":  func(t *testing.T, f *os.File) { write(t, f, 9*mib+9, []byte("a bitmap")) },
		"cut off":         func(t *testing.T, f *os.File) { must(t, f.Truncate(2*mib+1)) },
		"cut and written": func(t *testing.T, f *os.File) { must(t, f.Truncate(mib)); write(t, f, mib-1, []byte("xy")) },
	} {
		t.Run(name, func(t *testing.T) {
			src := deleted(t, t.TempDir(), false, func(f *os.File) { sparse(t, f, 3) })
			dst, patch := target(t, t.TempDir()), target(t, t.TempDir())
			sums := &copier.Sums{}
			_, err := copier.Copy(t.Context(), dst, src, copier.CopyOptions{Prove: true, Sums: sums})
			must(t, err)
			before, err := os.ReadFile(dst.Name())
			must(t, err)
			change(t, held(t, src))
			p, err := copier.Diff(t.Context(), patch, dst, src, sums, nil)
			must(t, err)
			if after, err := os.ReadFile(dst.Name()); err != nil || !bytes.Equal(after, before) {
				t.Fatalf("the copy was changed before its patch was on disk (%v)", err)
			}
			if same := p.Bytes == 0 && p.Size == int64(len(before)); same != (name == "nothing") {
				t.Errorf("%d bytes are changed", p.Bytes)
			}
			if name == "some bytes" {
				write(t, dst, 3*mib+5, []byte("the la")) // an interrupted Apply
			}
			for range 2 {
				must(t, copier.Apply(t.Context(), dst, patch))
				_, err = copier.Compare(t.Context(), src, dst, copier.CompareOptions{})
				must(t, err)
				must(t, copier.Verify(t.Context(), dst, p.Size, p.Sums.Digest(), nil))
			}
		})
	}
}

func TestAFileThatIsNoPatchChangesNothingSilently(t *testing.T) {
	src := deleted(t, t.TempDir(), false, func(f *os.File) { sparse(t, f, 3) })
	dst, patch := target(t, t.TempDir()), target(t, t.TempDir())
	_, err := copier.Copy(t.Context(), dst, src, copier.CopyOptions{})
	must(t, err)
	write(t, held(t, src), 5, []byte("x"))
	_, err = copier.Diff(t.Context(), patch, dst, src, nil, nil)
	must(t, err)
	whole, err := os.ReadFile(patch.Name())
	must(t, err)
	for n, body := range [][]byte{
		nil, whole[:7], whole[:20], whole[:len(whole)-1], bytes.Repeat([]byte{0xff}, 64), append(whole[:16:16], whole[:40]...),
	} {
		must(t, os.WriteFile(patch.Name(), body, 0o600))
		if err := copier.Apply(t.Context(), dst, patch); !errors.Is(err, copier.ErrNoPatch) {
			t.Errorf("patch %d: %v", n, err)
		}
	}
}
