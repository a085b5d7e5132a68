package httplimit_test

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
)

// byUser takes the key from a header, which is fit for a test only.
func byUser(r *http.Request) (string, error) { return r.Header.Get("User"), nil }

func byCost(r *http.Request) int64 {
	n, _ := strconv.ParseInt(r.Header.Get("Cost"), 10, 64)
	return n
}

func newHandler(t require.TestingT, limit ratelimit.Limit, o httplimit.Options, next http.HandlerFunc) http.Handler {
	l, err := ratelimit.NewKeyed[string](limit, ratelimit.KeyedOptions{Capacity: 100})
	require.NoError(t, err)
	wrap, err := httplimit.New(l, o)
	require.NoError(t, err)
	return wrap(next)
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") }

func call(h http.Handler, method, user string, cost int64) *http.Response {
	r := httptest.NewRequest(method, "/", nil)
	r.Header.Set("User", user)
	r.Header.Set("Cost", strconv.FormatInt(cost, 10))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t require.TestingT, r *http.Response) string {
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return string(b)
}

func TestFieldsOnEveryAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// 3 at once, then one in 10 seconds.
		h := newHandler(t, ratelimit.Per(6, time.Minute).Burst(3), httplimit.Options{Key: byUser}, ok)
		for _, tc := range []struct {
			pause  time.Duration
			status int
			limit  string
			retry  string
		}{
			{0, 200, `"default";r=2;t=10`, ""},
			{0, 200, `"default";r=1;t=10`, ""},
			{2500 * time.Millisecond, 200, `"default";r=0;t=8`, ""},
			{0, 429, `"default";r=0;t=8`, "8"},
			{7 * time.Second, 429, `"default";r=0;t=1`, "1"},
			{500*time.Millisecond - 1, 429, `"default";r=0;t=1`, "1"},
			{1, 200, `"default";r=0;t=10`, ""},
			{20 * time.Second, 200, `"default";r=1;t=10`, ""},
			{time.Hour, 200, `"default";r=2;t=10`, ""},
		} {
			time.Sleep(tc.pause)
			res := call(h, "GET", "a", 1)
			require.Equal(t, tc.status, res.StatusCode)
			require.Equal(t, []string{`"default";q=3;w=30`}, res.Header.Values("RateLimit-Policy"))
			require.Equal(t, []string{tc.limit}, res.Header.Values("RateLimit"))
			require.Equal(t, tc.retry, res.Header.Get("Retry-After"))
		}
		require.Equal(t, 200, call(h, "GET", "b", 1).StatusCode, "another client has its own limit")
	})
}

func TestRefusalIsAProblem(t *testing.T) {
	served := 0
	h := newHandler(t, ratelimit.Per(1, time.Hour), httplimit.Options{Name: `da"ily\`, Key: byUser}, func(w http.ResponseWriter, r *http.Request) {
		served++
		ok(w, r)
	})
	require.Equal(t, "served", body(t, call(h, "GET", "a", 1)))
	res := call(h, "POST", "a", 1)
	require.Equal(t, http.StatusTooManyRequests, res.StatusCode)
	require.Equal(t, "application/problem+json", res.Header.Get("Content-Type"))
	text := body(t, res)
	require.Equal(t, strconv.Itoa(len(text)), res.Header.Get("Content-Length"))
	require.JSONEq(t, `{
		"type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
		"title": "Request cannot be satisfied as assigned quota has been exceeded",
		"status": 429,
		"violated-policies": ["da\"ily\\"]
	}`, text)
	require.Equal(t, `"da\"ily\\";q=1;w=3600`, res.Header.Get("RateLimit-Policy"))
	require.Equal(t, `"da\"ily\\";r=0;t=3600`, res.Header.Get("RateLimit"))
	require.Equal(t, 1, served)
}

func TestPolicies(t *testing.T) {
	for _, tc := range []struct {
		limit ratelimit.Limit
		want  string
	}{
		{ratelimit.Per(100, 10*time.Second), `"default";q=100;w=10`}, // the draft's own example
		{ratelimit.Per(50, time.Minute), `"default";q=50;w=60`},
		{ratelimit.Per(1000, time.Hour), `"default";q=1000;w=3600`},
		{ratelimit.Per(100, time.Second).Burst(200), `"default";q=200;w=2`},
		{ratelimit.Per(3, time.Second).Burst(10), `"default";q=10;w=4`},
		{ratelimit.Per(100, time.Second).Burst(1), `"default";q=100;w=1`},
		{ratelimit.Per(1, 600*time.Millisecond), `"default";q=1;w=1`},
		{ratelimit.Per(7, 2*time.Second).Burst(1), `"default";q=3;w=1`},
		{ratelimit.Per(3, time.Second+1).Burst(3), `"default";q=3;w=2`},
		{ratelimit.Per(3, 6*time.Second+1).Burst(1), `"default";q=1;w=3`},
		{ratelimit.Per(3, 3*time.Second).Burst(1), `"default";q=1;w=1`},
		{ratelimit.Per(999_999_999, time.Second).Burst(1_000_000_000), `"default";q=1000000000;w=2`},
		{ratelimit.Per(1_000_000_000, time.Second).Burst(1 << 60), `"default";q=999999999999999;w=1152921505`},
	} {
		res := call(newHandler(t, tc.limit, httplimit.Options{Key: byUser}, ok), "GET", "a", 1)
		require.Equal(t, tc.want, res.Header.Get("RateLimit-Policy"), "%v", tc.limit)
	}
}

func TestNumbersStayWithinAnInteger(t *testing.T) {
	h := newHandler(t, ratelimit.Per(1_000_000_000, time.Second).Burst(1<<60), httplimit.Options{Key: byUser, Cost: byCost}, ok)
	require.Equal(t, `"default";r=999999999999999`, call(h, "GET", "a", 0).Header.Get("RateLimit"))
	require.Equal(t, `"default";r=999999999999999;t=1`, call(h, "GET", "a", 1000).Header.Get("RateLimit"))
}

func TestRetryAfterIsNeverBeforeT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A burst of ten years is kept in coarse ticks: over all its units the
		// distance to the nominal rate is 50 ms.
		h := newHandler(t, ratelimit.Per(131, 400*time.Second).Burst(100_000_000), httplimit.Options{Key: byUser, Cost: byCost}, ok)
		require.Equal(t, 200, call(h, "GET", "a", 100_000_000).StatusCode)
		time.Sleep(2_074 * time.Millisecond) // the next unit is there after 3.053 s
		res := call(h, "GET", "a", 1)
		require.Equal(t, 429, res.StatusCode)
		require.Equal(t, "1", res.Header.Get("Retry-After"))
		require.Equal(t, `"default";r=0;t=1`, res.Header.Get("RateLimit"))
	})
}

func TestCosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, ratelimit.Per(10, 10*time.Second), httplimit.Options{Key: byUser, Cost: byCost}, ok)
		for _, tc := range []struct {
			cost   int64
			status int
			limit  string
			retry  string
		}{
			{0, 200, `"default";r=10`, ""}, // nothing is missing: no t
			{4, 200, `"default";r=6;t=1`, ""},
			{9, 429, `"default";r=6;t=1`, "3"}, // the next unit is near, nine are not
			{11, 429, `"default";r=6;t=1`, ""}, // never
			{math.MaxInt64, 429, `"default";r=6;t=1`, ""},
			{6, 200, `"default";r=0;t=1`, ""},
			{0, 200, `"default";r=0;t=1`, ""}, // free even then
			{-1, 200, "", ""},                 // a fault of ours: the policy is left out
			{math.MinInt64, 200, "", ""},
			{1, 429, `"default";r=0;t=1`, "1"},
		} {
			res := call(h, "GET", "a", tc.cost)
			require.Equal(t, tc.status, res.StatusCode, "cost %d", tc.cost)
			require.Equal(t, tc.limit, res.Header.Get("RateLimit"), "cost %d", tc.cost)
			require.Equal(t, tc.retry, res.Header.Get("Retry-After"), "cost %d", tc.cost)
		}
	})
}

func TestARequestWithoutAKeyIsRefused(t *testing.T) {
	secret := errors.New("no such token: hunter2")
	for name, key := range map[string]func(*http.Request) (string, error){
		"empty": func(*http.Request) (string, error) { return "", nil },
		"error": func(*http.Request) (string, error) { return "a", secret },
	} {
		t.Run(name, func(t *testing.T) {
			served := false
			h := newHandler(t, ratelimit.Per(100, time.Second), httplimit.Options{Key: key}, func(http.ResponseWriter, *http.Request) { served = true })
			res := call(h, "GET", "", 1)
			require.Equal(t, http.StatusBadRequest, res.StatusCode)
			require.Equal(t, "application/problem+json", res.Header.Get("Content-Type"))
			text := body(t, res)
			require.NotContains(t, text, "hunter2")
			var problem map[string]any
			require.NoError(t, json.Unmarshal([]byte(text), &problem))
			require.Equal(t, float64(400), problem["status"])
			require.Empty(t, res.Header.Get("RateLimit"))
			require.False(t, served)
		})
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	l, err := ratelimit.NewKeyed[string](ratelimit.Per(1, time.Second), ratelimit.KeyedOptions{Capacity: 1})
	require.NoError(t, err)
	for _, tc := range []struct {
		l    *ratelimit.Keyed[string]
		o    httplimit.Options
		want string
	}{
		{nil, httplimit.Options{Key: byUser}, "limiter is nil"},
		{l, httplimit.Options{}, "Options.Key is nil"},
		{l, httplimit.Options{Key: byUser, Name: "täglich"}, `Options.Name is "täglich"`},
		{l, httplimit.Options{Key: byUser, Name: "a\r\nSet-Cookie: b"}, "printable ASCII"},
		{l, httplimit.Options{Key: byUser, Name: "a\x7f"}, "printable ASCII"},
	} {
		_, err := httplimit.New(tc.l, tc.o)
		require.ErrorContains(t, err, tc.want)
	}
}

func TestMiddlewaresStack(t *testing.T) {
	inner := newHandler(t, ratelimit.Per(100, time.Minute), httplimit.Options{Name: "user", Key: byUser}, ok)
	outer := newHandler(t, ratelimit.Per(1000, time.Minute), httplimit.Options{Name: "site", Key: func(*http.Request) (string, error) { return "all", nil }}, inner.ServeHTTP)
	res := call(outer, "GET", "a", 1)
	policies, err := parseList(res.Header.Values("RateLimit-Policy")...)
	require.NoError(t, err)
	require.Equal(t, []member{{"site", map[string]int64{"q": 1000, "w": 60}}, {"user", map[string]int64{"q": 100, "w": 60}}}, policies)
	limits, err := parseList(res.Header.Values("RateLimit")...)
	require.NoError(t, err)
	require.Equal(t, []member{{"site", map[string]int64{"r": 999, "t": 1}}, {"user", map[string]int64{"r": 99, "t": 1}}}, limits)
}

// fieldsAreWellFormedAndTrue is a property over limits, names and costs.
func fieldsAreWellFormedAndTrue(t *rapid.T) {
	d := time.Duration(rapid.OneOf(rapid.Int64Range(1, int64(48*time.Hour)), rapid.Just(int64(time.Second))).Draw(t, "d"))
	n := rapid.Int64Range(1, int64(d)).Draw(t, "n")
	most := int64(min(float64(n)/float64(d)*(1<<58), 1<<58)) + 1
	burst := rapid.OneOf(rapid.Int64Range(1, most), rapid.Int64Range(1, min(most, 20))).Draw(t, "burst")
	limit := ratelimit.Per(n, d).Burst(burst)
	name := rapid.StringMatching(`[ -~]{0,20}`).Draw(t, "name")
	h := newHandler(t, limit, httplimit.Options{Name: name, Key: byUser, Cost: byCost}, ok)
	if name == "" {
		name = "default"
	}
	for range 4 {
		cost := rapid.Int64Range(0, burst+burst/8+1).Draw(t, "cost")
		res := call(h, "GET", "a", cost)

		policies, err := parseList(res.Header.Values("RateLimit-Policy")...)
		require.NoError(t, err)
		require.Len(t, policies, 1)
		require.Equal(t, name, policies[0].name)
		q, w := policies[0].params["q"], policies[0].params["w"]
		require.Positive(t, q)
		require.Positive(t, w)
		rate := float64(n) / float64(d) * 1e9
		require.LessOrEqual(t, float64(q)/float64(w), rate*(1+1e-12))
		if q < 999_999_999_999_999 {
			require.GreaterOrEqual(t, float64(q)/float64(w), rate/2*(1-1e-12))
		}

		limits, err := parseList(res.Header.Values("RateLimit")...)
		require.NoError(t, err)
		require.Len(t, limits, 1)
		require.Equal(t, name, limits[0].name)
		r, tt := limits[0].params["r"], limits[0].params["t"]
		require.GreaterOrEqual(t, r, int64(0))
		require.LessOrEqual(t, r, q)
		require.GreaterOrEqual(t, tt, int64(0))
		require.LessOrEqual(t, float64(tt), float64(d)/float64(n)/1e9+2, "the next unit is at most an interval away")

		retry := res.Header.Get("Retry-After")
		switch {
		case res.StatusCode == 200:
			require.Empty(t, retry)
		case cost > burst:
			require.Equal(t, 429, res.StatusCode)
			require.Empty(t, retry)
		default:
			require.Equal(t, 429, res.StatusCode)
			after, err := strconv.ParseInt(retry, 10, 64)
			require.NoError(t, err)
			require.Positive(t, after)
			require.GreaterOrEqual(t, after, tt, "Retry-After is not before t")
		}
	}
}

func TestFieldsAreWellFormedAndTrue(t *testing.T) { rapid.Check(t, fieldsAreWellFormedAndTrue) }

func FuzzFieldsAreWellFormedAndTrue(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(fieldsAreWellFormedAndTrue))
}

// FuzzName looks for a name that is accepted and does not come back.
func FuzzName(f *testing.F) {
	for _, seed := range []string{"default", `"`, `\`, `\"`, "a;q=1", `a",b`, "\t", "é", "\x00"} {
		f.Add(seed)
	}
	l, err := ratelimit.NewKeyed[string](ratelimit.Per(1, time.Second), ratelimit.KeyedOptions{Capacity: 1})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, name string) {
		wrap, err := httplimit.New(l, httplimit.Options{Name: name, Key: byUser})
		printable := !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' })
		require.Equal(t, printable, err == nil, "%q: %v", name, err)
		if err != nil {
			return
		}
		res := call(wrap(http.HandlerFunc(ok)), "GET", "a", 1)
		for _, field := range []string{"RateLimit", "RateLimit-Policy"} {
			members, err := parseList(res.Header.Values(field)...)
			require.NoError(t, err)
			require.Len(t, members, 1)
			if name != "" {
				require.Equal(t, name, members[0].name)
			}
		}
	})
}

func TestOverRealHTTP(t *testing.T) {
	h := newHandler(t, ratelimit.Per(5, time.Hour), httplimit.Options{Key: byUser}, ok)
	server := httptest.NewServer(h)
	defer server.Close()
	var served, refused atomic.Int64
	var wg sync.WaitGroup
	for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS"} {
		for range 5 {
			wg.Go(func() {
				r, err := http.NewRequestWithContext(t.Context(), method, server.URL, nil)
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("User", "a")
				res, err := server.Client().Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				_, _ = io.Copy(io.Discard, res.Body)
				switch {
				case res.Header.Get("RateLimit") == "" || res.Header.Get("RateLimit-Policy") == "":
					t.Error("an answer without the fields")
				case res.StatusCode == 200:
					served.Add(1)
				case res.StatusCode == 429 && res.Header.Get("Retry-After") != "":
					refused.Add(1)
				}
			})
		}
	}
	wg.Wait()
	require.Equal(t, int64(5), served.Load(), "every method counts")
	require.Equal(t, int64(15), refused.Load())
}
