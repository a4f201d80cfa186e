package ground

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAccountsOfTheMachineKeepTheirIDsAndOthersGetFreeOnes(t *testing.T) {
	users := []User{
		{Name: "nova", Groups: []string{"libvirt", "kvm"}, Home: "/var/lib/nova", Shell: "/bin/sh"},
		{Name: "libvirt-qemu", Group: "kvm", Groups: []string{"libvirt-qemu"}},
	}
	tests := map[string]struct {
		files, want map[string]string
	}{
		"a machine without them": {
			files: map[string]string{
				"passwd": "root:x:0:0::/root:/bin/bash\nother:x:999:5::/:/bin/sh", // with no end of line
				"group":  "root:x:0:\nmail:x:998:\n",
				"shadow": "root:!:1::::::\n",
			},
			want: map[string]string{
				"passwd": "root:x:0:0::/root:/bin/bash\nother:x:999:5::/:/bin/sh\n" +
					"nova:x:996:996::/var/lib/nova:/bin/sh\nlibvirt-qemu:x:994:995::/nonexistent:/usr/sbin/nologin\n",
				"group":   "root:x:0:\nmail:x:998:\nlibvirt:x:997:nova\nnova:x:996:\nkvm:x:995:nova\nlibvirt-qemu:x:994:libvirt-qemu\n",
				"shadow":  "root:!:1::::::\nnova:!:1::::::\nlibvirt-qemu:!:1::::::\n",
				"gshadow": "libvirt:!::\nnova:!::\nkvm:!::\nlibvirt-qemu:!::\n",
			},
		},
		"a machine on which packages have made them": {
			files: map[string]string{
				"passwd":  "nova:x:64060:64060::/var/lib/nova:/bin/sh\nlibvirt-qemu:x:64055:150::/:/bin/false\n",
				"group":   "nova:x:64060:\nkvm:x:150:somebody\nlibvirt:x:151:nova\nlibvirt-qemu:x:64055:libvirt-qemu\n",
				"shadow":  "nova:!:1::::::\nlibvirt-qemu:!:1::::::\n",
				"gshadow": "",
			},
			want: map[string]string{
				"passwd":  "nova:x:64060:64060::/var/lib/nova:/bin/sh\nlibvirt-qemu:x:64055:150::/:/bin/false\n",
				"group":   "nova:x:64060:\nkvm:x:150:somebody,nova\nlibvirt:x:151:nova\nlibvirt-qemu:x:64055:libvirt-qemu\n",
				"shadow":  "nova:!:1::::::\nlibvirt-qemu:!:1::::::\n",
				"gshadow": "",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			etc := t.TempDir()
			for name, text := range test.files {
				do(t, os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644))
			}
			do(t, addAccounts(etc, users, []string{"libvirt"}))
			got := map[string]string{}
			for name := range test.want {
				text, err := os.ReadFile(filepath.Join(etc, name))
				do(t, err)
				got[name] = string(text)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAMachineWithoutAFreeIDIsAnError(t *testing.T) {
	var a accounts
	for id := 100; id < 1000; id++ {
		a.passwd += strings.ReplaceAll("uN:x:N:1::/:/bin/sh\n", "N", string(rune('0'+id/100))+string(rune('0'+id/10%10))+string(rune('0'+id%10)))
	}
	if err := a.addGroup("kvm"); err == nil || !strings.Contains(err.Error(), "kvm") {
		t.Errorf("the error is %v", err)
	}
}
