package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func writeJournal(t testing.TB, dir string, steps ...string) {
	t.Helper()
	j, _, err := Open(dir, nil)
	recovertest.Must(t, err)
	defer j.Close()
	for _, s := range steps {
		recovertest.Must(t, j.Write(Record{Step: s, Phase: recover.PhaseBegin}, nil))
	}
}

func TestAJournalThatIsNoFileIsAnErrorAtOnce(t *testing.T) {
	dir := t.TempDir()
	recovertest.Must(t, unix.Mkfifo(filepath.Join(dir, FileName), 0o600))
	if records, err := Read(dir); err == nil {
		t.Errorf("it was read: %v", records)
	}
	if j, _, err := Open(dir, nil); err == nil {
		j.Close()
		t.Error("it was opened")
	}
}

func TestATornLastLineIsPassedOverAndWrittenAnew(t *testing.T) {
	for name, torn := range map[string]string{
		"half a record":                     `{"seq":3,"step":"co`,
		"no end of line":                    `{"seq":3,"step":"copy","phase":"begin"}`,
		"a line of zeros":                   "\x00\x00\x00\x00\n",
		"a sector that did not get to disk": `{"seq":3,"error":"` + strings.Repeat("x", 600) + strings.Repeat("\x00", 1100) + "}\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeJournal(t, dir, "one", "two")
			f, err := os.OpenFile(filepath.Join(dir, FileName), os.O_WRONLY|os.O_APPEND, 0)
			recovertest.Must(t, err)
			f.WriteString(torn)
			f.Close()
			if records, err := Read(dir); err != nil || len(records) != 2 {
				t.Fatalf("%d records, %v", len(records), err)
			}
			writeJournal(t, dir, "three")
			records, err := Read(dir)
			recovertest.Must(t, err)
			if len(records) != 3 || records[2].Step != "three" || records[2].Seq != 3 {
				t.Errorf("after it was opened again: %+v", records)
			}
		})
	}
}

func TestEveryBitThatIsTurnedOverInAJournalIsNoticed(t *testing.T) {
	dir := t.TempDir()
	writeJournal(t, dir, "one")
	j, _, err := Open(dir, nil)
	recovertest.Must(t, err)
	recovertest.Must(t, j.Write(Record{Step: "copy", Phase: recover.PhaseDone, Path: "/i/a disk"}, Staged{Name: "x", Proof: Proof{Size: 7}}))
	recovertest.Must(t, j.Write(Record{Step: "destroy", Phase: recover.PhaseFailed, Error: "no more"}, nil))
	recovertest.Must(t, j.Close())
	path := filepath.Join(dir, FileName)
	data, err := os.ReadFile(path)
	recovertest.Must(t, err)
	want, err := Read(dir)
	recovertest.Must(t, err)
	for at := range len(data) * 8 {
		data[at/8] ^= 1 << (at % 8)
		got, _, err := readRecords(bytes.NewReader(data))
		for n, r := range got {
			if !reflect.DeepEqual(r, want[n]) {
				t.Fatalf("bit %d: record %d is %+v", at, n, r)
			}
		}
		// A first record that seems to have no checksum is that of an earlier release.
		if err == nil && len(got) != len(want) || err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("bit %d: %d records, %v", at, len(got), err)
		}
		data[at/8] ^= 1 << (at % 8)
	}
}

func TestADamagedLastLineIsNotPassedOver(t *testing.T) {
	for name, line := range map[string]string{
		"a line that is no record":    "garbage\n",
		"half a record with an end":   "{\"seq\":3,\n",
		"a record without a checksum": "{\"seq\":3,\"step\":\"copy\",\"phase\":\"begin\"}\n",
		"a record with a wrong one":   "{\"seq\":3,\"step\":\"copy\",\"phase\":\"begin\",\"crc32c\":\"00000000\"}\n",
		"a record with a zero byte":   "{\"seq\":3,\"step\":\"co\x00y\",\"phase\":\"begin\",\"crc32c\":\"00000000\"}\n",
		"a record with a flipped end": "{\"seq\":3,\"step\":\"copy\",\"phase\":\"begin\",\"crc32c\":\"00000000\"}\x0b\n",
	} {
		dir := t.TempDir()
		writeJournal(t, dir, "one", "two")
		f, err := os.OpenFile(filepath.Join(dir, FileName), os.O_WRONLY|os.O_APPEND, 0)
		recovertest.Must(t, err)
		f.WriteString(line)
		f.Close()
		if records, err := Read(dir); !errors.Is(err, ErrDamaged) || len(records) != 2 {
			t.Errorf("%s: %d records, %v", name, len(records), err)
		}
	}
}

// Those of earlier releases have no checksums; what is added to one has.
func TestAJournalWithoutChecksumsIsReadAndWrittenOn(t *testing.T) {
	for _, torn := range []string{"", "{\"seq\":3,", "garbage\n"} {
		dir := t.TempDir()
		old := "{\"seq\":1,\"step\":\"run\",\"phase\":\"begin\"}\n{\"seq\":2,\"step\":\"pin\",\"phase\":\"begin\"}\n"
		recovertest.Must(t, os.WriteFile(filepath.Join(dir, FileName), []byte(old+torn), 0o600))
		writeJournal(t, dir, "three")
		if records, err := Read(dir); err != nil || len(records) != 3 || records[2].Seq != 3 {
			t.Errorf("%q: %+v, %v", torn, records, err)
		}
	}
}

func TestASalvagedJournalHasChecksums(t *testing.T) {
	dir := t.TempDir()
	writeJournal(t, dir, "one", "two", "three")
	path := filepath.Join(dir, FileName)
	data, err := os.ReadFile(path)
	recovertest.Must(t, err)
	recovertest.Must(t, os.WriteFile(path, bytes.Replace(data, []byte("three"), []byte("thrge"), 1), 0o600))
	recovertest.Must(t, Salvage(dir))
	after, err := os.ReadFile(path)
	recovertest.Must(t, err)
	if want := bytes.Join(bytes.SplitAfter(data, []byte("\n"))[:2], nil); !bytes.Equal(after, want) {
		t.Errorf("it is %q, not %q", after, want)
	}
}

func TestGarbageInTheMiddleOfAJournalIsAnErrorWithWhatCameBefore(t *testing.T) {
	dir := t.TempDir()
	writeJournal(t, dir, "one", "two")
	path := filepath.Join(dir, FileName)
	data, err := os.ReadFile(path)
	recovertest.Must(t, err)
	lines := bytes.SplitAfter(data, []byte("\n"))
	recovertest.Must(t, os.WriteFile(path, slices.Concat(lines[0], []byte("garbage\n"), lines[1]), 0o600))
	records, err := Read(dir)
	if err == nil || len(records) != 1 {
		t.Errorf("%d records, %v", len(records), err)
	}
	if _, _, err := Open(dir, nil); err == nil {
		t.Error("it was opened for more")
	}
	if after, _ := os.ReadFile(path); !bytes.Contains(after, []byte("garbage")) {
		t.Error("it was cut off in the middle")
	}
}

func TestTheFailpointIsReachedWhenTheRecordIsOnDisk(t *testing.T) {
	dir := t.TempDir()
	var seen []string
	j, _, err := Open(dir, func(point string) {
		records, err := Read(dir)
		if err != nil || len(records) == 0 || records[len(records)-1].Point() != point {
			t.Errorf("at %s the journal ends otherwise (%v)", point, err)
		}
		seen = append(seen, point)
	})
	recovertest.Must(t, err)
	defer j.Close()
	recovertest.Must(t, j.Write(Record{Step: "copy", Phase: recover.PhaseBegin}, nil))
	recovertest.Must(t, j.Write(Record{Step: "copy", Phase: recover.PhaseFailed, Error: "no"}, map[string]int{"n": 1}))
	if !slices.Equal(seen, []string{"copy.begin", "copy.failed"}) {
		t.Error(seen)
	}
}

func TestARecordThatCanNotBeWrittenIsAnErrorAndDamagesNothing(t *testing.T) {
	dir, makeRoom := recovertest.SmallDir(t)
	j, _, err := Open(dir, nil)
	recovertest.Must(t, err)
	recovertest.Must(t, j.Write(Record{Step: "one", Phase: recover.PhaseBegin}, nil))
	recovertest.Fill(t, dir)
	long := strings.Repeat("x", 8<<10)
	if err := j.Write(Record{Step: "two", Phase: recover.PhaseBegin, Error: long}, nil); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full file system: %v", err)
	}
	makeRoom()
	recovertest.Must(t, j.Write(Record{Step: "three", Phase: recover.PhaseBegin}, nil))
	recovertest.Must(t, j.Close())
	records, err := Read(dir)
	if err != nil || len(records) != 2 || records[1].Step != "three" {
		t.Errorf("%+v, %v", records, err)
	}
	if err := j.Write(Record{Step: "four", Phase: recover.PhaseBegin}, nil); err == nil {
		t.Error("a closed journal takes records")
	}
}

func FuzzReadRecords(f *testing.F) {
	f.Add([]byte("{\"seq\":1,\"step\":\"run\",\"phase\":\"begin\",\"data\":{}}\n" +
		"{\"seq\":2,\"instance\":\"u\",\"step\":\"copy\",\"phase\":\"done\",\"data\":{\"dir\":\"/d\"}}\n"))
	f.Add([]byte("{\"seq\":1}\n\x00\x00"))
	f.Add([]byte("x\n{}\n"))
	f.Add([]byte("{\"instance\":\"u\",\"step\":\"instance\",\"phase\":\"done\",\"data\":null}\n{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, length, err := readRecords(bytes.NewReader(data))
		if length < 0 || length > int64(len(data)) {
			t.Fatalf("%d of %d bytes", length, len(data))
		}
		if err == nil {
			// What was read is what is there when the rest is cut off.
			again, l, err := readRecords(bytes.NewReader(data[:length]))
			if err != nil || l != length || len(again) != len(records) {
				t.Fatalf("%d records of %d bytes, then %d of %d, %v", len(records), length, len(again), l, err)
			}
		}
		_, _ = StatusOf("id", records)
		_, _ = HistoriesOf(records)
		_, _, _ = PlanOf(records)
	})
}
