package keeper

import (
	"encoding/json"
	"slices"
	"testing"
)

func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{
		`{"op":"hello","protocol":1}`,
		`{"op":"hold","owner":"a","key":"64769:12","meta":{"path":"/x"}}`,
		`{"op":"release","owner":"a","keys":["1:2","3:4"]}`,
		`{"op":"open","key":"1:02"}`, `{"op":"list"} {}`, `[]`, `null`, ``, `{"op":"hold"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRequest(data)
		if err != nil {
			return
		}
		badKey := (r.Op == opHold || r.Op == opOpen) && !validKey(r.Key)
		badOwner := (r.Op == opHold || r.Op == opRelease) && r.Owner == ""
		if badKey || badOwner || len(r.Meta) > maxMeta {
			t.Fatalf("accepted: %+v", r)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) < maxMeta {
			if _, err := parseRequest(again); err != nil {
				t.Fatalf("%s was accepted, but %s is not: %v", data, again, err)
			}
		}
	})
}

func FuzzParseReply(f *testing.F) {
	for _, s := range []string{
		`{"end":true}`,
		`{"hold":{"key":"1:2","owners":["a"],"since":"2026-01-02T03:04:05Z"}}`,
		`{"error":"x","missing":true}`,
		`{`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseReply(data)
		if err == nil && r.Hold != nil && !validKey(r.Hold.Key) {
			t.Fatalf("taken: %+v", r)
		}
		if (r.Error != "" || r.Missing) && r.err() == nil {
			t.Fatalf("no error: %+v", r)
		}
	})
}

func TestAKeyHasOneSpelling(t *testing.T) {
	for key, want := range map[string]bool{
		"64769:12": true, "18446744073709551615:1": true, "1:2:b1700000000123456789": true, "1:2:b-1": true, "1:2:g0a1f": true,
		"": false, "0:0": false, ":": false, "1": false, "1:": false, ":1": false, "01:1": false, "1:01": false, "+1:1": false, "-1:1": false,
		"1:2:": false, "1:2:b": false, "1:2:g": false, "1:2:b-": false, "1:2:b1a": false, "1:2:gG": false, "1:2:b1:b1": false,
		"1:2:3": false, " 1:2": false, "1:2\n": false, "0x1:2": false, "18446744073709551616:1": false,
	} {
		if validKey(key) != want {
			t.Errorf("%q is valid: %v", key, !want)
		}
	}
}

func TestTheRootCgroupsAreThoseThatSystemdTracksProcessesIn(t *testing.T) {
	const v2 = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
	const hybrid = "35 24 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" +
		"36 24 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n" +
		"37 24 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	for _, tc := range []struct {
		name, cgroups, mounts string
		want                  []string
	}{
		{"v2", "0::/user.slice/session-1.scope\n", v2, []string{"/sys/fs/cgroup/cgroup.procs"}},
		{"already in the root", "0::/\n", v2, nil},
		{
			"hybrid", "4:memory:/x\n1:name=systemd:/x\n0::/x\n", hybrid,
			[]string{"/sys/fs/cgroup/systemd/cgroup.procs", "/sys/fs/cgroup/unified/cgroup.procs"},
		},
		{"not mounted", "0::/x\n", "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n", nil},
		{"only a part is mounted", "0::/x\n", "35 24 0:30 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup rw\n", nil},
		{"nonsense", "0\n:::\nx\n\n", "x\n - \n", nil},
	} {
		if got := rootCgroups([]byte(tc.cgroups), []byte(tc.mounts)); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}
