package shed

import (
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
	"time"
)

// cgroupUsage is what a control group has used since it was made.
type cgroupUsage struct {
	dir                string // of the control group; empty if there is none
	used               time.Duration
	periods, throttled uint64
}

// cgroupDir is where the files of the processor controller of a control group are. The
// zero cgroupDir is that of none.
type cgroupDir struct {
	mount, group string // the directory is mount + group; both without a slash at the end
	v2           bool
}

// readCgroup returns the use and the quota, in processors, of the control group that is
// bound most tightly, of the one that is given and those around it. The quota is 0 when
// there is no bound, or nothing can be read. It is all read anew each time, since a
// quota may change while the process runs.
func readCgroup(root fs.FS, dir cgroupDir) (usage cgroupUsage, quota float64) {
	if dir.mount == "" {
		return cgroupUsage{}, 0
	}
	tightest := ""
	for group := dir.group; ; group = group[:strings.LastIndexByte(group, '/')] {
		if q := readQuota(root, dir.mount+group, dir.v2); q > 0 && (quota == 0 || q < quota) {
			quota, tightest = q, dir.mount+group
		}
		if group == "" {
			break
		}
	}
	if quota == 0 {
		return cgroupUsage{}, 0
	}
	stat := parseCPUStat(readText(root, tightest+"/cpu.stat"))
	if !dir.v2 {
		// In version 1 the use is counted by another controller, which is mounted
		// together with the first, or beside it.
		text := readText(root, tightest+"/cpuacct.usage")
		if text == "" {
			rest := strings.TrimPrefix(tightest, dir.mount)
			text = readText(root, path.Dir(dir.mount)+"/cpuacct"+rest+"/cpuacct.usage")
		}
		stat.used = time.Duration(parseCount(strings.TrimSpace(text)))
	}
	stat.dir = tightest
	return stat, quota
}

func readQuota(root fs.FS, dir string, v2 bool) float64 {
	if v2 {
		return parseCPUMax(readText(root, dir+"/cpu.max"))
	}
	return parseCFSQuota(readText(root, dir+"/cpu.cfs_quota_us"), readText(root, dir+"/cpu.cfs_period_us"))
}

// readText returns the text of a file, empty if it cannot be read.
func readText(root fs.FS, name string) string {
	name = strings.TrimPrefix(name, "/")
	if !fs.ValidPath(name) {
		return ""
	}
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return string(text)
}

// findCgroup finds the control group of the processor controller in the texts of
// /proc/self/cgroup and /proc/self/mountinfo (cgroups(7), proc_pid_mountinfo(5)). A
// version 1 controller is preferred, since a controller that is in use there is not
// available in version 2.
func findCgroup(cgroup, mountinfo string) (dir cgroupDir) {
	v1, v1ok, v2, v2ok := parseProcCgroup(cgroup)
	for line := range strings.Lines(mountinfo) {
		m, mok := parseMount(line)
		switch {
		case mok && m.v2 && v2ok && dir.mount == "":
			dir = cgroupDir{mount: m.point, group: within(v2, m.root), v2: true}
		case mok && !m.v2 && v1ok:
			return cgroupDir{mount: m.point, group: within(v1, m.root)}
		}
	}
	return dir
}

// within returns the group relative to the root of the mount. A group that is not
// below it is not visible, as in a container that has not its own view of the groups:
// the root of the mount then is the closest that is.
func within(group, root string) string {
	group, root = strings.TrimSuffix(group, "/"), strings.TrimSuffix(root, "/")
	rest, ok := strings.CutPrefix(group, root)
	if !ok || rest != "" && rest[0] != '/' {
		return ""
	}
	return rest
}

// parseProcCgroup returns the groups of the version 1 processor controller and of
// version 2 from the text of /proc/self/cgroup: lines of "id:controllers:group".
func parseProcCgroup(text string) (v1 string, v1ok bool, v2 string, v2ok bool) {
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) < 3 || !strings.HasPrefix(fields[2], "/") {
			continue
		}
		if fields[0] == "0" && fields[1] == "" {
			v2, v2ok = fields[2], true
		}
		if hasElement(fields[1], "cpu") {
			v1, v1ok = fields[2], true
		}
	}
	return v1, v1ok, v2, v2ok
}

// cgroupMount is a mount of a hierarchy of control groups.
type cgroupMount struct {
	root, point string // point without a slash at the end
	v2          bool
}

// parseMount reads a line of /proc/self/mountinfo: "id parent device root point
// options optional… - type source superoptions". It is false for any other than
// version 2 and the version 1 processor controller.
func parseMount(line string) (m cgroupMount, ok bool) {
	before, after, found := strings.Cut(line, " - ")
	fields, rest := strings.Fields(before), strings.Fields(after)
	if !found || len(fields) < 6 || len(rest) < 1 {
		return m, false
	}
	m = cgroupMount{root: unescape(fields[3]), point: strings.TrimSuffix(unescape(fields[4]), "/")}
	if m.point == "" {
		return m, false // nobody mounts it in the place of all files
	}
	switch rest[0] {
	case "cgroup2":
		m.v2 = true
		return m, true
	case "cgroup":
		return m, len(rest) >= 3 && hasElement(rest[2], "cpu")
	}
	return m, false
}

// hasElement tells whether a list with commas has an element.
func hasElement(list, element string) bool {
	for e := range strings.SplitSeq(list, ",") {
		if e == element {
			return true
		}
	}
	return false
}

// unescape replaces the octal escapes of mountinfo, such as \040 for a blank.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// parseCPUMax reads cpu.max of version 2: "max 100000" or "150000 100000", a quota
// and a period in microseconds. It returns processors, 0 if there is no bound.
func parseCPUMax(text string) float64 {
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return 0
	}
	return parseCFSQuota(fields[0], fields[1])
}

// parseCFSQuota reads cpu.cfs_quota_us and cpu.cfs_period_us of version 1. A quota
// of -1 is no bound.
func parseCFSQuota(quota, period string) float64 {
	return share(float64(parseCount(strings.TrimSpace(quota))), float64(parseCount(strings.TrimSpace(period))))
}

// parseCPUStat reads cpu.stat: lines of a name and a number. Version 1 does not tell
// the use.
func parseCPUStat(text string) (u cgroupUsage) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n := parseCount(value)
		switch name {
		case "usage_usec":
			u.used = time.Duration(min(n, math.MaxInt64/1000)) * time.Microsecond
		case "nr_periods":
			u.periods = n
		case "nr_throttled":
			u.throttled = n
		}
	}
	return u
}

// parseCount reads a whole number of nanoseconds, microseconds or events. It is 0 if
// the text is none, or negative, and no more than fits an int64.
func parseCount(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0
	}
	return n
}
