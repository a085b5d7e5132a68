package httpbalance_test

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/httpbalance"
)

func TestWhichStatusesAreFailures(t *testing.T) {
	t.Parallel()
	for code := 200; code < 600; code++ {
		b, told := newBalancer(t, "http://a")
		tr := &httpbalance.Transport{Balancer: b, Retries: -1, Base: roundTripper(func(*http.Request) (*http.Response, error) {
			return respond(code, http.NoBody), nil
		})}
		_, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
		require.NoError(t, err)
		if code == 429 || code >= 500 && code != 501 && code != 505 {
			require.Len(t, told.all(), 1, code)
			var status *httpbalance.StatusError
			require.ErrorAs(t, told.all()[0], &status)
			require.Equal(t, code, status.Code)
		} else {
			require.Empty(t, told.all(), code)
		}
	}
	require.EqualError(t, &httpbalance.StatusError{Code: 503}, "httpbalance: the backend answered 503 Service Unavailable")
}

func TestRetryAfterInSecondsAndAsADate(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 25, 8, 0, 0, 0, time.UTC)
	const longest = time.Duration(math.MaxInt64)
	for _, tc := range []struct {
		value, date string
		want        time.Duration
	}{
		{"", "", 0},
		{"0", "", 0},
		{"120", "", 2 * time.Minute},
		{"007", "", 7 * time.Second},
		{"9223372036", "", 9223372036 * time.Second},
		{"9223372037", "", longest},
		{"99999999999999999999999", "", longest},
		{"-5", "", 0},
		{"+5", "", 0},
		{"1.5", "", 0},
		{"1 2", "", 0},
		{"soon", "", 0},
		{"Wed, 25 Nov 2026 08:00:30 GMT", "", 30 * time.Second},
		{"Wednesday, 25-Nov-26 08:00:30 GMT", "", 30 * time.Second}, // RFC 850
		{"Wed Nov 25 08:00:30 2026", "", 30 * time.Second},          // asctime
		{"Wed, 25 Nov 2026 07:59:00 GMT", "", 0},
		{"Wed, 25 Nov 2026 12:00:30 GMT", "Wed, 25 Nov 2026 12:00:00 GMT", 30 * time.Second}, // their clock is ahead
		{"Wed, 25 Nov 2026 08:00:30 GMT", "nonsense", 30 * time.Second},
		{"Fri, 31 Dec 9999 23:59:59 GMT", "", longest},
	} {
		h := http.Header{}
		h.Set("Retry-After", tc.value)
		h.Set("Date", tc.date)
		require.Equal(t, tc.want, httpbalance.RetryAfter(h, now), tc.value)
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120", "")
	f.Add("Wed, 25 Nov 2026 08:00:30 GMT", "Wed, 25 Nov 2026 08:00:00 GMT")
	f.Add("18446744073709551616", "x")
	f.Fuzz(func(t *testing.T, value, date string) {
		h := http.Header{"Retry-After": {value}, "Date": {date}}
		d := httpbalance.RetryAfter(h, time.Unix(1795593660, 0))
		if d < 0 {
			t.Fatalf("%q, %q: %v", value, date, d)
		}
		if _, err := http.ParseTime(value); d > 0 && err != nil {
			for _, c := range value {
				if c < '0' || c > '9' {
					t.Fatalf("%q is neither a date nor a number but %v", value, d)
				}
			}
		}
	})
}

// What the header says arrives: the balancer leaves the backend alone for that long.
func TestABackendThatAsksForAPauseGetsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, err := balance.New[*url.URL](balance.RoundRobin(), balance.Options{Health: balance.Health{MaxEjected: 0.5, SlowStart: -1}})
		require.NoError(t, err)
		set, err := httpbalance.Static("http://a", "http://b", "http://c")
		require.NoError(t, err)
		require.NoError(t, b.Update(set))
		busy := false
		asked := map[string]int{}
		tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			asked[r.URL.Host]++
			if busy && r.URL.Host == "a:80" {
				resp := respond(503, http.NoBody)
				resp.Header.Set("Retry-After", "20")
				return resp, nil
			}
			return respond(200, http.NoBody), nil
		})}
		send := func(n int) int {
			clear(asked)
			for range n {
				resp, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
				require.NoError(t, err)
				require.Equal(t, 200, resp.StatusCode)
			}
			return asked["a:80"]
		}
		require.Equal(t, 3, send(9))
		busy = true
		require.Equal(t, 1, send(9))
		busy = false
		time.Sleep(19 * time.Second)
		require.Zero(t, send(9))
		time.Sleep(2 * time.Second)
		require.Positive(t, send(9))
	})
}

func TestLoadHeader(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		value string
		want  balance.Load
		ok    bool
	}{
		{"TEXT cpu_utilization=0.3, mem_utilization=0.8, rps_fractional=10.0, eps=1, named_metrics.custom_metric_util=0.4", balance.Load{Utilization: 0.3}, true},
		{"cpu_utilization:0.3,application_utilization:0.9", balance.Load{Utilization: 0.9}, true},
		{"TEXT named_metrics.in_flight=12,named_metrics.latency=0.25", balance.Load{InFlight: 12, Latency: 250 * time.Millisecond}, true},
		{`JSON {"cpu_utilization": 1.3, "rps_fractional": 10.0, "named_metrics": {"in_flight": 4, "other": 7}}`, balance.Load{Utilization: 1.3, InFlight: 4}, true},
		{`JSON {"cpuUtilization": 0.3, "applicationUtilization": 0.6, "namedMetrics": {"latency": 2}}`, balance.Load{Utilization: 0.6, Latency: 2 * time.Second}, true},
		{"TEXT mem_utilization=0.8", balance.Load{}, false},
		{"TEXT cpu_utilization=NaN", balance.Load{}, false},
		{"TEXT cpu_utilization=-1", balance.Load{}, false},
		{"TEXT cpu_utilization=0.3, eps=Inf", balance.Load{}, false},
		{"TEXT cpu_utilization", balance.Load{}, false},
		{"TEXT cpu_utilization=much", balance.Load{}, false},
		{"TEXT ", balance.Load{}, false},
		{"JSON {", balance.Load{}, false},
		{`JSON {"cpu_utilization": "x"}`, balance.Load{}, false},
		{"JSON {}", balance.Load{}, false},
		{"BIN AAAA", balance.Load{}, false},
		{"", balance.Load{}, false},
	} {
		got, ok := httpbalance.ParseLoad(tc.value)
		require.Equal(t, tc.ok, ok, tc.value)
		require.Equal(t, tc.want, got, tc.value)
	}
}

func FuzzParseLoad(f *testing.F) {
	f.Add("TEXT cpu_utilization=0.3, named_metrics.in_flight=12")
	f.Add(`JSON {"cpu_utilization": 1e300, "named_metrics": {"in_flight": 1e300, "latency": 1e300}}`)
	f.Add("a:b,,=")
	f.Fuzz(func(t *testing.T, v string) {
		l, ok := httpbalance.ParseLoad(v)
		if !ok && l != (balance.Load{}) {
			t.Fatalf("%q: %+v", v, l)
		}
		if l.InFlight < 0 || l.Latency < 0 || !(l.Utilization >= 0) || math.IsInf(l.Utilization, 0) {
			t.Fatalf("%q: %+v", v, l)
		}
	})
}

// The backend with the higher reported load gets nothing while all look idle from here.
func TestReportedLoadReachesTheBalancer(t *testing.T) {
	t.Parallel()
	b, err := balance.New[*url.URL](balance.LeastRequest(balance.LeastRequestOptions{}), balance.Options{Health: unhealthy})
	require.NoError(t, err)
	set, err := httpbalance.Static("http://a", "http://b", "http://c", "http://d", "http://e", "http://f")
	require.NoError(t, err)
	require.NoError(t, b.Update(set))
	asked := map[string]int{}
	tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
		asked[r.URL.Host]++
		resp := respond(200, http.NoBody)
		resp.Header["Endpoint-Load-Metrics"] = []string{`JSON {"cpu_utilization": 0.1}`}
		if r.URL.Host == "a:80" {
			resp.Header["Endpoint-Load-Metrics"] = []string{"TEXT eps=1", "cpu_utilization=0.9"} // one list in two fields
		}
		return resp, nil
	})}
	send := func() {
		_, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
		require.NoError(t, err)
	}
	for len(asked) < len(set) {
		send()
	}
	before := asked["a:80"]
	for range 200 {
		send()
	}
	require.Equal(t, before, asked["a:80"])
}
