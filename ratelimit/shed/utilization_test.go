package shed_test

import (
	"fmt"
	"math"
	"runtime/metrics"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

func files(texts map[string]string) fstest.MapFS {
	fs := fstest.MapFS{}
	for name, text := range texts {
		fs[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fs
}

const (
	mountV2     = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	mountV1     = "29 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
	mountAcct   = "33 31 0:31 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n"
	mountDocker = "33 31 0:31 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
	mountOther  = "24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw\n"
)

func TestTheTightestControlGroupIsRead(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  shed.CgroupUsage
	}{
		"none": {},
		"version 2, in a container": {
			map[string]string{
				"proc/self/cgroup":       "0::/\n",
				"proc/self/mountinfo":    mountOther + mountV2,
				"sys/fs/cgroup/cpu.max":  "150000 100000\n",
				"sys/fs/cgroup/cpu.stat": "usage_usec 2500000\nuser_usec 1\nsystem_usec 2\nnr_periods 100\nnr_throttled 7\nthrottled_usec 9\n",
			},
			shed.CgroupUsage{Dir: "/sys/fs/cgroup", Used: 2500 * time.Millisecond, Periods: 100, Throttled: 7, Quota: 1.5},
		},
		"version 2, the parent is tighter": {
			map[string]string{
				"proc/self/cgroup":                        "0::/a.slice/b.service\n",
				"proc/self/mountinfo":                     mountV2,
				"sys/fs/cgroup/a.slice/cpu.max":           "50000 100000\n",
				"sys/fs/cgroup/a.slice/cpu.stat":          "usage_usec 1\n",
				"sys/fs/cgroup/a.slice/b.service/cpu.max": "200000 100000\n",
			},
			shed.CgroupUsage{Dir: "/sys/fs/cgroup/a.slice", Used: time.Microsecond, Quota: 0.5},
		},
		"version 2, without a quota": {
			map[string]string{
				"proc/self/cgroup":       "0::/\n",
				"proc/self/mountinfo":    mountV2,
				"sys/fs/cgroup/cpu.max":  "max 100000\n",
				"sys/fs/cgroup/cpu.stat": "usage_usec 1\n",
			},
			shed.CgroupUsage{},
		},
		"version 1, two controllers": {
			map[string]string{
				"proc/self/cgroup":                        "2:cpuacct:/g\n1:cpu:/g\n0::/\n",
				"proc/self/mountinfo":                     mountV2 + mountV1 + mountAcct,
				"sys/fs/cgroup/cpu/g/cpu.cfs_quota_us":    "300000\n",
				"sys/fs/cgroup/cpu/g/cpu.cfs_period_us":   "100000\n",
				"sys/fs/cgroup/cpu/g/cpu.stat":            "nr_periods 10\nnr_throttled 5\nthrottled_time 12345\n",
				"sys/fs/cgroup/cpuacct/g/cpuacct.usage":   "7000000000\n",
				"sys/fs/cgroup/cpu/cpu.cfs_quota_us":      "-1\n",
				"sys/fs/cgroup/cpu/cpu.cfs_period_us":     "100000\n",
				"sys/fs/cgroup/cpuacct/cpuacct.usage":     "9\n",
				"sys/fs/cgroup/cpuacct/g/cpuacct.usage_2": "9\n",
			},
			shed.CgroupUsage{Dir: "/sys/fs/cgroup/cpu/g", Used: 7 * time.Second, Periods: 10, Throttled: 5, Quota: 3},
		},
		"version 1, mounted together, in a container that sees the host's names": {
			map[string]string{
				"proc/self/cgroup":                            "4:cpu,cpuacct:/docker/abc\n",
				"proc/self/mountinfo":                         mountDocker,
				"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us":  "100000\n",
				"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
				"sys/fs/cgroup/cpu,cpuacct/cpuacct.usage":     "5\n",
			},
			shed.CgroupUsage{Dir: "/sys/fs/cgroup/cpu,cpuacct", Used: 5, Quota: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, shed.ReadCgroup(files(tc.files)))
		})
	}
}

func TestTheControlGroupIsFound(t *testing.T) {
	for _, tc := range []struct {
		cgroup, mountinfo string
		mount, group      string
		v2, ok            bool
	}{
		{"", "", "", "", false, false},
		{"0::/\n", mountV1, "", "", false, false},
		{"0::/a/b\n", mountV2, "/sys/fs/cgroup", "/a/b", true, true},
		{"1:cpu:/x\n0::/a\n", mountV2 + mountV1, "/sys/fs/cgroup/cpu", "/x", false, true},
		{"1:cpuset:/x\n", mountV1, "", "", false, false},
		{"3:cpu,cpuacct:/docker/abc/sub\n", mountDocker, "/sys/fs/cgroup/cpu,cpuacct", "/sub", false, true},
		{"3:cpu,cpuacct:/docker/abcdef\n", mountDocker, "/sys/fs/cgroup/cpu,cpuacct", "", false, true},
		{"0::/with:colon\n", mountV2, "/sys/fs/cgroup", "/with:colon", true, true},
		{"0::/a\n", `1 2 0:1 / /odd\040\134name rw - cgroup2 none rw` + "\n", `/odd \name`, "/a", true, true},
		{"0::no-slash\n", mountV2, "", "", false, false},
	} {
		mount, group, v2, ok := shed.FindCgroup(tc.cgroup, tc.mountinfo)
		require.Equal(t, tc.ok, ok, tc.cgroup)
		require.Equal(t, []any{tc.mount, tc.group, tc.v2}, []any{mount, group, v2}, tc.cgroup)
	}
}

func TestAQuotaIsReadInProcessors(t *testing.T) {
	for text, want := range map[string]float64{
		"max 100000\n": 0, "150000 100000\n": 1.5, "1000 100000": 0.01,
		"": 0, "1": 0, "-1 100000": 0, "100000 0": 0, "x y": 0, "1 2 3": 0, "1e5 1e5": 0,
		"99999999999999999999 1": 0,
	} {
		require.InDelta(t, want, shed.ParseCPUMax(text), 1e-12, text)
	}
}

func FuzzFindCgroup(f *testing.F) {
	f.Add("0::/a\n", mountV2)
	f.Add("3:cpu,cpuacct:/docker/abc/sub\n1:cpu:/x\n", mountDocker+mountV1)
	f.Add("0::/\n", `1 2 0:1 /\04 /odd\777\1 rw - cgroup2`)
	f.Fuzz(func(t *testing.T, cgroup, mountinfo string) {
		mount, group, _, ok := shed.FindCgroup(cgroup, mountinfo)
		if !ok {
			require.Empty(t, mount+group)
			return
		}
		require.True(t, group == "" || group[0] == '/', group)
		require.Contains(t, cgroup, group)
		// To walk up from there ends, and reads nothing outside of the root.
		shed.ReadCgroup(files(map[string]string{"proc/self/cgroup": cgroup, "proc/self/mountinfo": mountinfo}))
	})
}

func FuzzCPUFiles(f *testing.F) {
	f.Add("150000 100000\n")
	f.Add("usage_usec 2500000\nnr_periods 100\nnr_throttled 7\n")
	f.Add("usage_usec 99999999999999999\nnr_periods -1\nusage_usec\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		quota := shed.ParseCPUMax(text)
		require.True(t, quota >= 0 && !math.IsInf(quota, 0), quota)
		used, _, _ := shed.ParseCPUStat(text)
		require.GreaterOrEqual(t, used, time.Duration(0))
	})
}

// The percentile of a histogram is the end of the bucket in which that of the sorted
// values lies.
func TestLatencyIsThePercentileSinceTheLastTime(t *testing.T) {
	buckets := []float64{math.Inf(-1), 0, 0.001, 0.002, 0.005, 0.01, 0.1, math.Inf(1)}
	rapid.Check(t, func(t *rapid.T) {
		h := &metrics.Float64Histogram{Buckets: buckets, Counts: make([]uint64, len(buckets)-1)}
		var counts []uint64
		for range rapid.IntRange(1, 5).Draw(t, "readings") {
			values := rapid.SliceOfN(rapid.IntRange(0, 150_000), 0, 250).Draw(t, "microseconds")
			for _, v := range values {
				for i := range h.Counts {
					if s := float64(v) / 1e6; s >= buckets[i] && s < buckets[i+1] {
						h.Counts[i]++
					}
				}
			}
			want := time.Duration(0)
			if slices.Sort(values); len(values) > 0 {
				v := float64(values[len(values)-len(values)/100-1]) / 1e6
				end := slices.IndexFunc(buckets, func(b float64) bool { return b > v })
				if want = time.Duration(buckets[end] * 1e9); math.IsInf(buckets[end], 1) {
					want = 100 * time.Millisecond
				}
			}
			require.InDelta(t, want, shed.LatencySince(&counts, h), 1)
		}
	})
}

func TestLatencyIgnoresOneInAHundred(t *testing.T) {
	for _, tc := range []struct {
		fast, slow uint64
		want       time.Duration
	}{
		{0, 0, 0},
		{0, 1, time.Second},
		{98, 1, time.Second},
		{99, 1, time.Millisecond},
		{98, 2, time.Second},
		{178, 2, time.Second},
		{990, 10, time.Millisecond},
		{990, 11, time.Second},
	} {
		h := &metrics.Float64Histogram{Buckets: []float64{0, 0.001, 1}, Counts: []uint64{tc.fast, tc.slow}}
		require.Equal(t, tc.want, shed.LatencySince(new([]uint64), h), "%+v", tc)
	}
}

func TestTheShareOfTheCollectorFades(t *testing.T) {
	var g shed.GCShare
	require.InDelta(t, 0.25, g.Update(5, 20, 10), 1e-12)
	require.InDelta(t, 0.4, g.Update(9, 30, 10), 1e-12) // 4 of 10
	require.InDelta(t, 0.4, g.Update(9, 30, 10), 1e-12) // no cycle since
	require.InDelta(t, 0.2, g.Update(9, 30, 10), 1e-12) // 4 of the 20 since
	require.InDelta(t, 0.02, g.Update(9, 30, 180), 1e-12)
	require.InDelta(t, 0, g.Update(9, 330, 10), 1e-12)
}

// The meter divides what a control group used by its quota and the time.
func TestRuntimeMeterMeasuresTheControlGroup(t *testing.T) {
	fs := files(map[string]string{
		"proc/self/cgroup":      "0::/\n",
		"proc/self/mountinfo":   mountV2,
		"sys/fs/cgroup/cpu.max": "50000 100000\n",
	})
	write := func(usage time.Duration, periods, throttled int) {
		fs["sys/fs/cgroup/cpu.stat"] = &fstest.MapFile{Data: fmt.Appendf(nil,
			"usage_usec %d\nnr_periods %d\nnr_throttled %d\n", usage.Microseconds(), periods, throttled)}
	}
	synctest.Test(t, func(t *testing.T) {
		write(time.Hour, 1000, 500)
		m, err := shed.NewRuntimeMeterIn(fs)
		require.NoError(t, err)
		require.True(t, math.IsNaN(m.Utilization()), "nothing was measured yet")

		measure := func() shed.RuntimeReading {
			u := m.Utilization()
			r := m.Reading()
			require.InDelta(t, u, r.Utilization, 0)
			require.GreaterOrEqual(t, u, max(r.CPU, r.Throttled))
			return r
		}
		// The bubble's seconds take no time: what the process uses counts for nothing.
		time.Sleep(100 * time.Second)
		write(time.Hour+20*time.Second, 2000, 600)
		r := measure()
		require.InDelta(t, 0.4, r.CPU, 1e-9)
		require.InDelta(t, 0.1, r.Throttled, 1e-9)
		require.InDelta(t, 0.5, r.Quota, 1e-9)

		write(time.Hour+50*time.Second, 2001, 601)
		time.Sleep(99 * time.Millisecond)
		require.Equal(t, r, measure(), "too soon")
		time.Sleep(100*time.Second - 99*time.Millisecond)
		r = measure()
		require.InDelta(t, 0.6, r.CPU, 1e-9)
		require.InDelta(t, 1, r.Throttled, 1e-9, "it was stopped in every period")

		write(time.Hour, 0, 0) // it was made anew
		time.Sleep(100 * time.Second)
		r = measure()
		require.Less(t, r.CPU, 0.1)
		require.Zero(t, r.Throttled)

		delete(fs, "sys/fs/cgroup/cpu.max")
		time.Sleep(100 * time.Second)
		require.Zero(t, measure().Quota)
	})
}

// When another group becomes the tightest, what it used before is not taken for what it
// used since.
func TestRuntimeMeterBeginsAnewWithAnotherGroup(t *testing.T) {
	fs := files(map[string]string{
		"proc/self/cgroup":         "0::/a\n",
		"proc/self/mountinfo":      mountV2,
		"sys/fs/cgroup/cpu.max":    "200000 100000\n",
		"sys/fs/cgroup/cpu.stat":   "usage_usec 1000\n",
		"sys/fs/cgroup/a/cpu.max":  "max 100000\n",
		"sys/fs/cgroup/a/cpu.stat": "usage_usec 9000000000\n",
	})
	synctest.Test(t, func(t *testing.T) {
		m, err := shed.NewRuntimeMeterIn(fs)
		require.NoError(t, err)
		fs["sys/fs/cgroup/a/cpu.max"] = &fstest.MapFile{Data: []byte("100000 100000\n")}
		time.Sleep(100 * time.Second)
		m.Utilization()
		require.Less(t, m.Reading().CPU, 0.1)
		fs["sys/fs/cgroup/a/cpu.stat"] = &fstest.MapFile{Data: []byte("usage_usec 9050000000\n")}
		time.Sleep(100 * time.Second)
		m.Utilization()
		require.InDelta(t, 0.5, m.Reading().CPU, 1e-9)
		require.InDelta(t, 1, m.Reading().Quota, 1e-9)
	})
}

// Whatever this machine is, its readings are numbers that fit each other.
func TestRuntimeMeterMeasuresThisProcess(t *testing.T) {
	m, err := shed.NewRuntimeMeter(shed.RuntimeMeterOptions{Latency: time.Millisecond, GC: 0.25})
	require.NoError(t, err)
	require.True(t, math.IsNaN(m.Reading().Utilization))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for u := m.Utilization(); math.IsNaN(u); u = m.Utilization() { // busy for 100 ms
				_ = make([]byte, 1<<12)
			}
		})
	}
	wg.Wait()
	r := m.Reading()
	require.Positive(t, r.CPU)
	require.InDelta(t, max(float64(r.Latency)/float64(time.Millisecond), r.GC/0.25, r.CPU, r.Throttled), r.Utilization, 1e-12)
	for _, part := range []float64{r.Utilization, r.GC, r.CPU, r.Throttled, r.Quota, float64(r.Latency)} {
		require.True(t, part >= 0 && !math.IsInf(part, 0), "%+v", r)
	}
}

func TestRuntimeMeterOptionsAreChecked(t *testing.T) {
	for text, o := range map[string]shed.RuntimeMeterOptions{
		"shed: RuntimeMeterOptions.Latency is -1ns, expected 0 or more": {Latency: -1},
		"shed: RuntimeMeterOptions.GC is -0.1, expected 0 to 1":         {GC: -0.1},
		"shed: RuntimeMeterOptions.GC is 1.1, expected 0 to 1":          {GC: 1.1},
		"shed: RuntimeMeterOptions.GC is NaN, expected 0 to 1":          {GC: math.NaN()},
	} {
		_, err := shed.NewRuntimeMeter(o)
		require.EqualError(t, err, text)
	}
}
