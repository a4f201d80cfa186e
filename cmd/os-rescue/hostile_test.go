package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/config"
	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/console"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
)

// hostile are names that an instance, a file or a process may have.
func hostile() []string {
	return []string{
		"\x1b]0;title\x07", "\x1b[31;1mred\x1b[2J", "over\rwritten\x00", "\u202egpj.exe", "zero\u200bwidth\ufeff\u00ad",
		"\x9b2J\xff", "\u009b2J\u0085",
		"a\nFORGED b", "a\r\nFORGED b\u2028FORGED", "tag\U000e0041\ufe0f\u2066", "' ; $(x) \x7f", "\t|",
	}
}

// filler fills values with hostile text.
type filler struct{ *rand.Rand }

func (r filler) text() string {
	all := hostile()
	return all[r.IntN(len(all))]
}

// known are the values of types that the program compares with its own.
func known(kind reflect.Type) []string {
	switch kind {
	case reflect.TypeFor[recover.Verdict]():
		return []string{"intact", "recoverable", "displaced", "conflict", "lost", "unaffected", "unknown"}
	case reflect.TypeFor[recover.FileState]():
		return []string{"present", "deleted", "displaced", "replaced", "missing", "unknown"}
	case reflect.TypeFor[recover.Role]():
		return []string{"disk", "backing", "console-log", "disk-info"}
	case reflect.TypeFor[recover.Action]():
		return []string{"live", "reboot", "publish", "hard-reboot", "backup", "put-back", "refuse", "none"}
	case reflect.TypeFor[recover.Outcome]():
		return []string{"rescued", "failed", "skipped", ""}
	case reflect.TypeFor[recover.RunState]():
		return []string{"running", "interrupted", "finished"}
	case reflect.TypeFor[recover.Phase]():
		return []string{"begin", "done", "failed"}
	case reflect.TypeFor[recover.HoldingKind]():
		return []string{"pin", "copy", "aside"}
	case reflect.TypeFor[check.Level]():
		return []string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}
	}
	return nil
}

func (r filler) fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.String:
		text := r.text()
		if values := known(v.Type()); values != nil && r.IntN(8) > 0 {
			text = values[r.IntN(len(values))]
		}
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(int64(r.IntN(1 << 20)))
	case reflect.Uint64, reflect.Uint32:
		v.SetUint(uint64(r.IntN(1 << 20)))
	case reflect.Float64:
		v.SetFloat(r.Float64())
	case reflect.Pointer:
		if depth > 0 && r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			r.fill(v.Elem(), depth-1)
		}
	case reflect.Slice:
		n := 1 + r.IntN(3)
		if depth == 0 {
			n = 0
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			r.fill(v.Index(i), depth-1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		if depth > 0 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			r.fill(key, depth-1)
			r.fill(value, depth-1)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Now()))
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				r.fill(v.Field(i), depth)
			}
		}
	}
}

// shows returns what of the output must not be there: a character that does not show itself, or
// a line that a name has made.
func shows(output string) string {
	for _, r := range output {
		if r < ' ' && r != '\n' || r >= 0x7f && r <= 0x9f ||
			strings.ContainsRune("\u00ad\u200b\u2028\u2029\u202e\u2066\ufe0f\ufeff\U000e0041", r) {
			return string(r)
		}
	}
	if !utf8.ValidString(output) {
		return "no UTF-8"
	}
	for _, line := range strings.Split(output, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "FORGED") {
			return line
		}
	}
	return ""
}

// documents counts the documents of JSON that the output is made of.
func documents(output string) (n int, err error) {
	for d := json.NewDecoder(strings.NewReader(output)); err == nil; n++ {
		var document json.RawMessage
		if err = d.Decode(&document); errors.Is(err, io.EOF) {
			return n, nil
		}
	}
	return n, err
}

// hostileHost returns an engine all of whose answers are hostile, the same for a seed.
func hostileHost(seed uint64) *fake {
	r := filler{rand.New(rand.NewPCG(seed, 0))}
	f := &fake{}
	var report check.Report
	for _, value := range []any{
		&f.report, &f.plan, &f.result, &f.runs, &f.guarded, &f.held, &f.verified, &f.abandoned, &f.status, &f.keeper, &f.unclaimed, &report,
	} {
		r.fill(reflect.ValueOf(value).Elem(), 6)
	}
	f.guarded.Running = true
	f.guarded.Incidents[0].UUID = "u1"
	f.check = func(context.Context, check.Options, scanFunc) (check.Report, error) { return report, nil }
	if seed%4 == 3 {
		f.err = &recover.InstanceError{UUID: r.text(), Domain: r.text(), Safe: r.text(), Next: r.text(), Err: errors.New(r.text())}
	}
	return f
}

func TestNoNameReachesTheTerminalAsMoreThanAName(t *testing.T) {
	calls := []string{
		"scan", "check", "status", "status RUN", "report RUN", "version", "backup verify /b", "--all --offline --dry-run",
		"--all --offline --yes", "--all --offline", "--all", "--all --dry-run", "backup --all --to /b", "restore --from /b", "reboot --all",
		"resume", "resume --abandon RUN", "resume --abandon RUN --keep --yes", "keeper release --all",
		"keeper release --all --accept-loss last-copy --yes",
		"guard release u1",
	}
	own := len(calls)
	for _, name := range hostile() { // on the command line
		if fields := strings.Fields(name); len(fields) > 0 {
			calls = append(calls, fields[0], "--"+fields[0], "--all --mode "+fields[0], "scan -o "+fields[0], "--all --offline --config "+fields[0])
		}
	}
	for seed := range uint64(18) {
		if seed == 1 {
			calls = calls[:own]
		}
		for _, args := range calls {
			for _, output := range []string{"text", "json"} {
				f := hostileHost(seed)
				if seed%6 == 5 {
					f.away = fmt.Errorf("%w: %s", recover.ErrCloudUnavailable, hostile()[seed/6+7])
				}
				o := do(t, f, call{args: args + " --output " + output, interactive: true, stdin: "no\n"})
				if bad := shows(o.out); bad != "" {
					t.Errorf("%s (%s, seed %d) shows %q on standard output:\n%q", args, output, seed, bad, o.out)
				}
				if bad := shows(o.err); bad != "" {
					t.Errorf("%s (%s, seed %d) shows %q on standard error:\n%q", args, output, seed, bad, o.err)
				}
				if output == "json" {
					if n, err := documents(o.out); err != nil || n > 1 && args != "resume" { // which writes one per run
						t.Errorf("%s (seed %d): %d documents of JSON, %v: %q", args, seed, n, err, o.out)
					}
				}
				if t.Failed() {
					return
				}
			}
		}
	}
}

func TestALogLineIsOneLineThatRepaintsNothing(t *testing.T) {
	for _, format := range []string{"pretty", "json"} {
		var out bytes.Buffer
		stderr := console.NewStderr(&out)
		a := &app{sys: system{stderr: &out}, stderr: stderr}
		logger := a.logger(config.Config{LogFormat: format})
		for _, name := range hostile() {
			logger.Warn().Err(errors.New(name)).Str("path", name).Strs("names", []string{name, "x"}).
				Interface("map", map[string]any{name: []any{name}}).Msg(name)
		}
		stderr.Close()
		if bad := shows(out.String()); bad != "" {
			t.Errorf("%s shows %q: %q", format, bad, out.String())
		}
		if n := strings.Count(out.String(), "\n"); n != len(hostile()) {
			t.Errorf("%s: %d lines for %d events:\n%s", format, n, len(hostile()), out.String())
		}
		for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
			var event struct{ Message string }
			if format == "json" && (json.Unmarshal([]byte(line), &event) != nil ||
				utf8.ValidString(hostile()[i]) && event.Message != hostile()[i]) {
				t.Errorf("%q has another value than %q", line, hostile()[i])
			}
		}
	}
}

func TestJSONKeepsTheNamesThatItEscapes(t *testing.T) {
	f := &fake{report: recover.Report{}}
	for _, name := range hostile() {
		if utf8.ValidString(name) {
			f.report.Instances = append(f.report.Instances, recover.Instance{Name: name})
		}
	}
	o := do(t, f, call{args: "scan --output json"})
	var got recover.Report
	if err := json.Unmarshal([]byte(o.out), &got); err != nil {
		t.Fatal(err)
	}
	for i, want := range f.report.Instances {
		if got.Instances[i].Name != want.Name {
			t.Errorf("%q came back as %q", want.Name, got.Instances[i].Name)
		}
	}
}
