package shed

import (
	"io/fs"
	"runtime/metrics"
	"time"
)

// The doors through which the black box tests of the RuntimeMeter see inside.

// NewRuntimeMeterIn is NewRuntimeMeter with another root of the file system.
func NewRuntimeMeterIn(root fs.FS) (*RuntimeMeter, error) {
	return newRuntimeMeter(RuntimeMeterOptions{}, root)
}

// CgroupUsage is what ReadCgroup returns.
type CgroupUsage struct {
	Dir                string
	Used               time.Duration
	Periods, Throttled uint64
	Quota              float64
}

func ReadCgroup(root fs.FS) CgroupUsage {
	u, quota := readCgroup(root, findCgroup(readText(root, "proc/self/cgroup"), readText(root, "proc/self/mountinfo")))
	return CgroupUsage{u.dir, u.used, u.periods, u.throttled, quota}
}

// FindCgroup returns the mount and the group of a control group.
func FindCgroup(cgroup, mountinfo string) (mount, group string, v2, ok bool) {
	d := findCgroup(cgroup, mountinfo)
	return d.mount, d.group, d.v2, d.mount != ""
}

func ParseCPUMax(text string) float64 { return parseCPUMax(text) }

func ParseCPUStat(text string) (used time.Duration, periods, throttled uint64) {
	u := parseCPUStat(text)
	return u.used, u.periods, u.throttled
}

func LatencySince(counts *[]uint64, h *metrics.Float64Histogram) time.Duration {
	return latencySince(counts, h)
}

// GCShare follows the share of the garbage collector through a series of readings.
type GCShare struct{ share gcShare }

func (g *GCShare) Update(gc, total, elapsed float64) float64 {
	return g.share.update(gc, total, elapsed)
}

// MeasureNow measures, however short ago the last time was.
func (m *RuntimeMeter) MeasureNow() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = m.measure(time.Second)
}
