package console

import (
	"fmt"

	"github.com/dustin/go-humanize"
)

// Size writes bytes for a person: 4.2 GiB.
func Size(bytes int64) string { return humanize.IBytes(uint64(max(bytes, 0))) }

// Seconds writes a length of time for a person: 44 ms, 1.4 s, 14 s, 3 min 20 s.
func Seconds(s float64) string {
	switch n := int64(s + 0.5); {
	case s > 0 && s < 0.9995:
		return fmt.Sprintf("%.0f ms", max(s*1000, 1))
	case s < 10:
		return fmt.Sprintf("%.1f s", s)
	case n < 60:
		return fmt.Sprintf("%d s", n)
	case n < 3600:
		return fmt.Sprintf("%d min %d s", n/60, n%60)
	default:
		return fmt.Sprintf("%d h %d min", n/3600, n/60%60)
	}
}
