package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/os-rescue/os-rescue/test/bare"
	"github.com/os-rescue/os-rescue/test/ground"
)

// qemuIO fills the first bytes of an image with a pattern. A raw one is made.
func qemuIO(ctx context.Context, format, path string, pattern byte, size int, create bool) error {
	if create {
		if err := os.WriteFile(path, make([]byte, diskSize), 0o644); err != nil {
			return err
		}
	}
	write := fmt.Sprintf("write -q -P %d 0 %d", pattern, size)
	if out, err := exec.CommandContext(ctx, "qemu-io", "-f", format, "-c", write, path).CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-io %s: %w: %s", path, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// readImage reads the blocks of an image that are written, as they are in the image itself.
func readImage(path, format string) ([]byte, error) {
	if format == "raw" {
		return os.ReadFile(path)
	}
	source, err := json.Marshal(map[string]any{
		"driver": format, "backing": nil,
		"file": map[string]any{"driver": "file", "filename": path, "locking": "off"},
	})
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(ground.ScratchDir, "image-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	raw := filepath.Join(dir, "raw")
	if err := bare.QemuImg(context.Background(), "convert", "-U", "-O", "raw", "json:"+string(source), raw); err != nil {
		return nil, err
	}
	return os.ReadFile(raw)
}
