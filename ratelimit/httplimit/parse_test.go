package httplimit_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
)

func TestRetryAfterIsRead(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		field, date string
		want        time.Duration
	}{
		{"", "", 0},
		{"0", "", 0},
		{"120", "", 2 * time.Minute},
		{"007", "", 7 * time.Second},
		{"99999999999999999999", "", 1 << 31 * time.Second},
		{"-1", "", 0},
		{"+1", "", 0},
		{"1.5", "", 0},
		{" 1", "", 0},
		{"soon", "", 0},
		{"Sun, 01 Mar 2026 12:00:30 GMT", "", 30 * time.Second},
		{"Sunday, 01-Mar-26 12:00:30 GMT", "", 30 * time.Second},
		{"Sun Mar  1 12:00:30 2026", "", 30 * time.Second},
		{"Sun, 01 Mar 2026 11:59:59 GMT", "", 0},
		{"Sun, 01 Mar 2026 12:00:30 GMT", "Sun, 01 Mar 2026 12:00:20 GMT", 10 * time.Second}, // its clock is ahead of ours
		{"Sun, 01 Mar 2026 12:00:30 GMT", "noon", 30 * time.Second},
		{"Fri, 31 Dec 9999 23:59:59 GMT", "", 1 << 31 * time.Second},
	} {
		h := http.Header{"Retry-After": {tc.field}, "Date": {tc.date}}
		got, ok := httplimit.RetryAfter(h, now)
		require.Equal(t, tc.want, got, "%q", tc.field)
		require.Equal(t, tc.want > 0 || tc.field == "0" || strings.HasSuffix(tc.field, "59 GMT"), ok, "%q", tc.field)
	}
	_, ok := httplimit.RetryAfter(http.Header{}, now)
	require.False(t, ok)
}

func TestRateLimitIsRead(t *testing.T) {
	for _, tc := range []struct {
		lines []string
		want  int // seconds
	}{
		{[]string{`"default";r=50;t=30`}, 0},
		{[]string{`"default";r=0;t=30`}, 30},
		{[]string{`"default";r=0`}, 0},
		{[]string{`"default";t=30`}, 0},
		{[]string{`"a";r=0;t=3, "b";r=1;t=99,"c";t=9;r=0`}, 9},
		{[]string{`"a";r=0;t=3`, `"b";r=0;t=5`}, 5},
		{[]string{`"a";r=0;pk=:cHJvamVjdA==:;t=3`}, 3},
		{[]string{`"a";r=0;x;y=?1;z=tok/en;d=-1.5;s="\"\\";w=@12;t=3`}, 3},
		{[]string{`"a"; r=0;   t=3`}, 3},
		{[]string{`"a";r=1;r=0;t=9;t=3`}, 3},
		{[]string{`"a";r=0;b=%"f%c3%bc\ r";t=3`}, 3}, // a Display String
		{[]string{`"a";r=0;b=%"";t=3`}, 3},
		{[]string{`"a";r=0.0;t=3`}, 0},
		{[]string{`"a";r=0;t=-3`}, 0},
		{[]string{`"a";r=0;t=999999999999999`}, 1 << 31},
		// Not well-formed: nothing of it counts.
		{[]string{`"a";r=0;t=3,`}, 0},
		{[]string{`"a";r=0;t=3`, `"b`}, 0},
		{[]string{`a;r=0;t=3`}, 0},
		{[]string{`limit=100, remaining=0, reset=50`}, 0},
		{[]string{`100`}, 0},
		{[]string{`"a";r=0;t=1000000000000000`}, 0},
		{[]string{`"a";R=0;t=3`}, 0},
		{[]string{`"a";r=0;t=3 x`}, 0},
		{[]string{`"a";r=0;t=`}, 0},
		{[]string{`"a";r=0;t=3;b=:x`}, 0},
		{[]string{`"a";r=0;t=3;b=?2`}, 0},
		{[]string{`"a";r=0;t=3;b=@1.5`}, 0},
		{[]string{`"a";r=0;t=3;b=%`}, 0},
		{[]string{`"a";r=0;t=3;b=%x`}, 0},
		{[]string{`"a";r=0;t=3;b=%"x`}, 0},
		{[]string{`"a";r=0;t=3;b=%"%C3%BC"`}, 0}, // lower case only
		{[]string{`"a";r=0;t=3;b=%"%c3"`}, 0},    // not UTF-8
		{[]string{`"a";r=0;t=3;b=%"%c`}, 0},
		{[]string{`"a";r=0;t=3;b=%"ü"`}, 0},
		{[]string{`"ä";r=0;t=3`}, 0},
		{[]string{``}, 0},
	} {
		require.Equal(t, time.Duration(tc.want)*time.Second, httplimit.Exhausted(tc.lines...), "%q", tc.lines)
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"1", "0", "99999999999999999999", "Sun, 01 Mar 2026 12:00:30 GMT", "-", "١"} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, field, date string) {
		d, _ := httplimit.RetryAfter(http.Header{"Retry-After": {field}, "Date": {date}}, time.Now())
		require.GreaterOrEqual(t, d, time.Duration(0))
		require.LessOrEqual(t, d, 1<<31*time.Second)
	})
}

// FuzzRateLimit compares with the strict parser of the tests, which knows less: what it
// reads must be read alike.
func FuzzRateLimit(f *testing.F) {
	for _, seed := range []string{`"default";r=50;t=30`, `"a";r=0;t=3, "b";r=1;t=99`, `"a\"";r=0;x=?1;t=1`, `"a";r=0;b=:aa==:`, ``, `"`, `"a";r`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		got := httplimit.Exhausted(field)
		require.GreaterOrEqual(t, got, time.Duration(0))
		members, err := parseList(field)
		if err != nil || field == "" || strings.HasPrefix(field, "\t") {
			return
		}
		var want int64
		for _, m := range members {
			if r, ok := m.params["r"]; ok && r == 0 {
				want = max(want, m.params["t"])
			}
		}
		require.Equal(t, time.Duration(min(want, 1<<31))*time.Second, got)
	})
}
