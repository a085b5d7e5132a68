package shed

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"
)

// RuntimeMeterOptions are the knobs of [NewRuntimeMeter].
type RuntimeMeterOptions struct {
	// Latency is the time that goroutines may wait for a processor: a wait of that
	// length is a utilization of 1. 0 means 20 milliseconds: to DAGOR a service whose
	// requests wait longer is overloaded.
	Latency time.Duration

	// GC is the share of the processors, from 0 to 1, that the garbage collector may
	// take: that share is a utilization of 1. 0 means 0.5, where the runtime begins to let
	// the heap grow above its limit rather than collect more.
	GC float64
}

// RuntimeReading is one measurement of a [RuntimeMeter].
type RuntimeReading struct {
	// Utilization is the largest of four: Latency and GC, each divided by what the
	// options allow, CPU, and Throttled. NaN if nothing was measured yet.
	Utilization float64

	// Latency is how long a goroutine that could run waited for a processor: of a hundred,
	// 99 waited no longer. A lower quantile says little, since most goroutines are woken
	// by another that makes room for them at once, however long the queue is.
	Latency time.Duration

	// GC is the share of the processors that the garbage collector took in its last
	// cycle, without what it did while they were idle. It fades when cycles are rare.
	GC float64

	// CPU is the processor time that was used, divided by what was allowed: by
	// GOMAXPROCS, or by the quota of the control group, which others may use too.
	// It is the larger of the two.
	CPU float64

	// Throttled is the share of the scheduling periods of the control group, of 100
	// milliseconds as a rule, in which it used up its quota and was stopped.
	Throttled float64

	// Quota is the number of processors that the control group may use, 0 if that is
	// not bounded or not known.
	Quota float64
}

// RuntimeMeter measures how busy the process is, from what the runtime and the
// kernel count anyway:
//
//   - how long goroutines wait for a processor (/sched/latencies of runtime/metrics), the
//     Go counterpart of DAGOR's queueing time;
//   - what the garbage collector takes (/cpu/classes/gc);
//   - processor time against GOMAXPROCS: of the process from getrusage, or, where there
//     is none, from /cpu/classes, which is known at the end of a collection only;
//   - on Linux, processor time and throttling against the quota of the control group,
//     version 1 or 2, and of those around it: the tightest counts.
//
// The utilization is the largest of them, since the scarcest resource decides. What
// cannot be read counts as idle. It does not see waits for locks, disks or other
// services: for those, count workers.
//
// A RuntimeMeter must come from [NewRuntimeMeter]. It needs no closing. A measurement
// covers the time since the one before. It costs some tens of microseconds, the more
// the deeper the control group, and allocates. The control group is that in which the
// process was when the meter was made.
//
// A RuntimeMeter is safe for concurrent use by multiple goroutines.
type RuntimeMeter struct {
	o    RuntimeMeterOptions // immutable
	root fs.FS               // immutable
	dir  cgroupDir           // immutable

	mu   sync.Mutex // guards all below
	at   time.Time  // of the last measurement
	last RuntimeReading

	samples []metrics.Sample
	waits   []uint64 // of the histogram, at the last measurement
	process time.Duration
	group   cgroupUsage
	gc      gcShare
}

// soonest is the least time between two measurements: the usual period of a quota. What
// is shorter than that says nothing about it.
const soonest = 100 * time.Millisecond

// What is read of runtime/metrics, in this order.
const (
	sampleWaits = iota
	sampleGC
	sampleGCIdle
	sampleIdle
	sampleTotal
)

// NewRuntimeMeter returns a meter that begins to measure now. Returns an error that
// names the field when an option is out of range.
func NewRuntimeMeter(o RuntimeMeterOptions) (*RuntimeMeter, error) {
	return newRuntimeMeter(o, os.DirFS("/"))
}

// newRuntimeMeter is NewRuntimeMeter with another root of the file system.
func newRuntimeMeter(o RuntimeMeterOptions, root fs.FS) (*RuntimeMeter, error) {
	if o.Latency < 0 {
		return nil, fmt.Errorf("shed: RuntimeMeterOptions.Latency is %v, expected 0 or more", o.Latency)
	}
	if !(o.GC >= 0 && o.GC <= 1) {
		return nil, fmt.Errorf("shed: RuntimeMeterOptions.GC is %v, expected 0 to 1", o.GC)
	}
	if o.Latency == 0 {
		o.Latency = 20 * time.Millisecond
	}
	if o.GC == 0 {
		o.GC = 0.5
	}
	m := &RuntimeMeter{o: o, root: root, samples: []metrics.Sample{
		sampleWaits:  {Name: "/sched/latencies:seconds"},
		sampleGC:     {Name: "/cpu/classes/gc/total:cpu-seconds"},
		sampleGCIdle: {Name: "/cpu/classes/gc/mark/idle:cpu-seconds"},
		sampleIdle:   {Name: "/cpu/classes/idle:cpu-seconds"},
		sampleTotal:  {Name: "/cpu/classes/total:cpu-seconds"},
	}}
	m.dir = findCgroup(readText(root, "proc/self/cgroup"), readText(root, "proc/self/mountinfo"))
	m.measure(0)
	m.gc.cost = 0 // what was before is not ours to judge
	m.at = time.Now()
	m.last = RuntimeReading{Utilization: math.NaN()}
	return m, nil
}

// Utilization measures and returns the utilization since the last measurement. Within
// 100 milliseconds of that it returns the same again, so several callers can share
// a meter. It is made for [ShedderOptions].Utilization.
func (m *RuntimeMeter) Utilization() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); now.Sub(m.at) >= soonest {
		m.last = m.measure(now.Sub(m.at))
		m.at = now
	}
	return m.last.Utilization
}

// Reading returns the last measurement, with its parts. It does not measure.
func (m *RuntimeMeter) Reading() RuntimeReading {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// measure reads everything. It is called with mu held.
func (m *RuntimeMeter) measure(elapsed time.Duration) (r RuntimeReading) {
	metrics.Read(m.samples)
	procs := float64(runtime.GOMAXPROCS(0))
	if s := m.samples[sampleWaits]; s.Value.Kind() == metrics.KindFloat64Histogram {
		h := s.Value.Float64Histogram()
		r.Latency = latencySince(&m.waits, h)
	}
	r.GC = m.gc.update(m.seconds(sampleGC)-m.seconds(sampleGCIdle), m.seconds(sampleTotal), elapsed.Seconds()*procs)

	process, ok := processTime()
	if !ok {
		process = time.Duration((m.seconds(sampleTotal) - m.seconds(sampleIdle)) * float64(time.Second))
	}
	r.CPU = share((process - m.process).Seconds(), elapsed.Seconds()*procs)
	m.process = process

	group, quota := readCgroup(m.root, m.dir)
	if quota > 0 && group.dir == m.group.dir {
		r.Quota = quota
		r.CPU = max(r.CPU, share((group.used-m.group.used).Seconds(), elapsed.Seconds()*quota))
		r.Throttled = min(share(float64(group.throttled)-float64(m.group.throttled), float64(group.periods)-float64(m.group.periods)), 1)
	}
	m.group = group

	r.Utilization = max(float64(r.Latency)/float64(m.o.Latency), r.GC/m.o.GC, r.CPU, r.Throttled)
	return r
}

// seconds returns a sample of seconds, 0 if the runtime has none of the name.
func (m *RuntimeMeter) seconds(sample int) float64 {
	if v := m.samples[sample].Value; v.Kind() == metrics.KindFloat64 {
		return v.Float64()
	}
	return 0
}

// share returns part/all, 0 if that is no sensible number.
func share(part, all float64) float64 {
	if part > 0 && all > 0 {
		return part / all
	}
	return 0
}

// gcShare is the share of the processors that the garbage collector takes. The
// runtime adds it up at the end of each cycle, for all the time until then.
type gcShare struct {
	gc, total float64 // at the end of the last cycle, in seconds of processors
	cost      float64 // of the last cycle
	length    float64 // of the last cycle and what preceded it
	since     float64 // the end of the last cycle
}

// update returns the share, given the sums and the seconds of processors since the
// last update. When the time since the last cycle is longer than the one before it,
// the cost is spread over the former.
func (g *gcShare) update(gc, total, elapsed float64) float64 {
	g.since += elapsed
	if total > g.total {
		g.cost, g.length, g.since = gc-g.gc, total-g.total, 0
		g.gc, g.total = gc, total
	}
	return share(g.cost, max(g.length, g.since))
}

// latencySince returns the 99th percentile of what was added to the histogram since the
// counts were taken, and takes them anew: the upper end of its bucket, or the lower end
// of a bucket without an upper one. It is 0 if nothing was added.
func latencySince(counts *[]uint64, h *metrics.Float64Histogram) time.Duration {
	if len(*counts) != len(h.Counts) {
		*counts = make([]uint64, len(h.Counts))
	}
	old := *counts
	var total uint64
	for i, n := range h.Counts {
		old[i] = n - old[i]
		total += old[i]
	}
	rank := total - total/100 // how many wait no longer
	var seconds float64
	for i, n := range old {
		if n > 0 && rank > 0 {
			seconds = h.Buckets[i+1]
			if math.IsInf(seconds, 1) {
				seconds = h.Buckets[i]
			}
			rank -= min(rank, n)
		}
	}
	copy(old, h.Counts)
	return time.Duration(max(min(seconds*float64(time.Second), math.MaxInt64/2), 0))
}
