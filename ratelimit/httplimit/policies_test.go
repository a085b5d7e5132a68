package httplimit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

func keyed(t require.TestingT, limit ratelimit.Limit) *ratelimit.Keyed[string] {
	l, err := ratelimit.NewKeyed[string](limit, ratelimit.KeyedOptions{Capacity: 100})
	require.NoError(t, err)
	return l
}

func limits(t require.TestingT, l *ratelimit.Keyed[string], o httplimit.Options) *httplimit.Limits {
	m, err := httplimit.NewLimits(l, o)
	require.NoError(t, err)
	return m
}

// byTenant reads the part of the user before the slash.
func byTenant(r *http.Request) (string, error) {
	user := r.Header.Get("User")
	for i, c := range user {
		if c == '/' {
			return user[:i], nil
		}
	}
	return "", errors.New("no tenant")
}

func everybody(*http.Request) (string, error) { return "all", nil }

func TestPoliciesAreDecidedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		user, tenant := keyed(t, ratelimit.Per(3, time.Minute)), keyed(t, ratelimit.Per(4, time.Hour))
		m := limits(t, user, httplimit.Options{
			Name: "user", Key: byUser, Cost: byCost,
			Also: []httplimit.Policy{{Name: "tenant", Limiter: tenant, Key: byTenant, Cost: byCost}},
		})
		h := m.Wrap(http.HandlerFunc(ok))
		for _, tc := range []struct {
			user     string
			cost     int64
			status   int
			limits   string
			retry    string
			violated string
		}{
			{"t/a", 2, 200, `"user";r=1;t=20, "tenant";r=2;t=900`, "", ""},
			{"t/a", 2, 429, `"user";r=1;t=20, "tenant";r=2;t=900`, "20", "user"}, // not charged to the tenant
			{"t/b", 2, 200, `"user";r=1;t=20, "tenant";r=0;t=900`, "", ""},
			{"t/c", 1, 429, `"user";r=3, "tenant";r=0;t=900`, "900", "tenant"}, // not charged to the user
			{"t/a", 2, 429, `"user";r=1;t=20, "tenant";r=0;t=900`, "1800", "tenant"},
			{"u/a", 3, 200, `"user";r=0;t=20, "tenant";r=1;t=900`, "", ""},
		} {
			res := call(h, "GET", tc.user, tc.cost)
			require.Equal(t, tc.status, res.StatusCode)
			require.Equal(t, []string{`"user";q=3;w=60, "tenant";q=4;w=3600`}, res.Header.Values("RateLimit-Policy"))
			require.Equal(t, []string{tc.limits}, res.Header.Values("RateLimit"))
			require.Equal(t, tc.retry, res.Header.Get("Retry-After"))
			if tc.violated != "" {
				require.Contains(t, body(t, res), `"violated-policies":["`+tc.violated+`"]`)
			}
		}
		require.Equal(t, httplimit.Stats{
			Allowed: 3, Refused: 3, Policies: []httplimit.PolicyStats{{"user", 1}, {"tenant", 2}},
		}, m.Stats())
	})
}

// Whatever is asked of whom, what was admitted is what two plain counters would have
// admitted together.
func TestAllOrNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		burst := rapid.Int64Range(1, 20).Draw(t, "user")
		total := rapid.Int64Range(1, 40).Draw(t, "site")
		left := map[string]int64{"a": burst, "b": burst, "c": burst}
		m := limits(t, keyed(t, ratelimit.Per(burst, 24*365*time.Hour)), httplimit.Options{
			Key: byUser, Cost: byCost, Settle: rapid.Bool().Draw(t, "settle"),
			Also: []httplimit.Policy{{Name: "site", Limiter: keyed(t, ratelimit.Per(total, 24*365*time.Hour)), Key: everybody, Cost: byCost}},
		})
		h := m.Wrap(http.HandlerFunc(ok))
		for range rapid.IntRange(1, 30).Draw(t, "requests") {
			who := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "who")
			cost := rapid.Int64Range(0, 12).Draw(t, "cost")
			want := http.StatusTooManyRequests
			if cost <= left[who] && cost <= total {
				want = http.StatusOK
				left[who] -= cost
				total -= cost
			}
			require.Equal(t, want, call(h, "GET", who, cost).StatusCode)
		}
	})
}

func TestConcurrentRequestsAreAllOrNothing(t *testing.T) {
	const users, each, perUser, perSite = 8, 50, 30, 100
	for _, settle := range []bool{false, true} {
		site := keyed(t, ratelimit.Per(perSite, 24*365*time.Hour))
		user := keyed(t, ratelimit.Per(perUser, 24*365*time.Hour))
		m := limits(t, user, httplimit.Options{
			Key: byUser, Settle: settle,
			Also: []httplimit.Policy{{Name: "site", Limiter: site, Key: everybody}},
		})
		var served [users]atomic.Int64
		h := m.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			i, _ := strconv.Atoi(r.Header.Get("User"))
			served[i].Add(1)
		}))
		var wg sync.WaitGroup
		for i := range users {
			for range 2 {
				wg.Go(func() {
					for range each {
						call(h, "GET", strconv.Itoa(i), 1)
					}
				})
			}
		}
		wg.Wait()
		var sum int64
		for i := range users {
			n := served[i].Load()
			require.LessOrEqual(t, n, int64(perUser))
			require.Equal(t, perUser-n, user.Peek(strconv.Itoa(i), 0).Remaining, "what was refused was not charged")
			sum += n
		}
		require.Equal(t, int64(perSite), sum)
		require.Equal(t, uint64(perSite), m.Stats().Allowed)
		require.Equal(t, uint64(users*2*each-perSite), m.Stats().Refused)
	}
}

func TestPoliciesApplyWhenTheySay(t *testing.T) {
	writes := func(r *http.Request) bool { return r.Method == "POST" }
	m := limits(t, keyed(t, ratelimit.Per(1, time.Hour)), httplimit.Options{
		Name: "writes", Key: byUser, When: writes,
		Also: []httplimit.Policy{{
			Name: "search", Limiter: keyed(t, ratelimit.Per(2, time.Hour)), Key: byUser,
			When: func(r *http.Request) bool { return r.URL.Path == "/search" },
		}},
	})
	h := m.Wrap(http.HandlerFunc(ok))
	do := func(method, path string) *http.Response {
		r := httptest.NewRequest(method, path, nil)
		if path != "/public" {
			r.Header.Set("User", "a")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	for range 3 {
		res := do("GET", "/public")
		require.Equal(t, 200, res.StatusCode, "no policy applies: no key is needed")
		require.Empty(t, res.Header.Values("RateLimit"))
	}
	require.Equal(t, `"search";r=1;t=1800`, do("GET", "/search").Header.Get("RateLimit"))
	require.Equal(t, `"writes";r=0;t=3600, "search";r=0;t=1800`, do("POST", "/search").Header.Get("RateLimit"))
	require.Equal(t, `"writes";q=1;w=3600`, do("POST", "/").Header.Get("RateLimit-Policy"))
	require.Equal(t, 429, do("GET", "/search").StatusCode)
}

func TestRoutesHaveLimitsOfTheirOwn(t *testing.T) {
	m := limits(t, keyed(t, ratelimit.Per(1, time.Hour)), httplimit.Options{Key: httplimit.Join(httplimit.Route, byUser)})
	mux := http.NewServeMux()
	mux.Handle("GET /users/{id}", m.Wrap(http.HandlerFunc(ok)))
	mux.Handle("GET /posts/{id}", m.Wrap(http.HandlerFunc(ok)))
	do := func(path string) int {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("User", "a")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w.Code
	}
	require.Equal(t, 200, do("/users/1"))
	require.Equal(t, 429, do("/users/2"), "the same route")
	require.Equal(t, 200, do("/posts/1"))

	outside := limits(t, keyed(t, ratelimit.Per(1, time.Hour)), httplimit.Options{Key: httplimit.Route})
	for range 3 { // a fault of the program is no client's: it is counted
		require.Equal(t, 404, call(outside.Wrap(mux), "GET", "b", 1).StatusCode)
	}
	require.Equal(t, uint64(3), outside.Stats().Failed)
}

func TestLimitsOfTheirOwn(t *testing.T) {
	l, err := ratelimit.NewKeyedBy(func(user string) ratelimit.Limit {
		if user == "gold" {
			return ratelimit.Per(100, time.Minute)
		}
		return ratelimit.Per(int64(1+len(user)), time.Minute)
	}, ratelimit.KeyedOptions{Capacity: 1000})
	require.NoError(t, err)
	m := limits(t, l, httplimit.Options{Key: byUser})
	h := m.Wrap(http.HandlerFunc(ok))
	for i := range 300 { // more limits than are remembered
		res := call(h, "GET", "gold", 1)
		require.Equal(t, `"default";q=100;w=60`, res.Header.Get("RateLimit-Policy"))
		user := fmt.Sprintf("%0*d", i, 0)
		res = call(h, "GET", user, 1)
		require.Equal(t, fmt.Sprintf(`"default";q=%d;w=60`, 1+len(user)), res.Header.Get("RateLimit-Policy"))
		require.LessOrEqual(t, m.Texts(), 64)
	}
}

func TestShadowRefusesNobody(t *testing.T) {
	mode := httplimit.Shadow
	var seen []ratelimit.Decision
	m := limits(t, keyed(t, ratelimit.Per(1, time.Hour)), httplimit.Options{
		Key: byUser, Mode: func(*http.Request) httplimit.Mode { return mode },
		OnDecision: func(r *http.Request, m httplimit.Mode, d ratelimit.Decision) {
			require.Equal(t, mode, m)
			require.Equal(t, "a", r.Header.Get("User"))
			seen = append(seen, d)
		},
	})
	h := m.Wrap(http.HandlerFunc(ok))
	for _, user := range []string{"a", "a", ""} {
		res := call(h, "GET", user, 1)
		require.Equal(t, "served", body(t, res))
		require.Empty(t, res.Header.Values("RateLimit"))
		require.Empty(t, res.Header.Values("RateLimit-Policy"))
		require.Empty(t, res.Header.Values("Retry-After"))
	}
	require.Equal(t, httplimit.Stats{Allowed: 1, Shadowed: 2, Policies: []httplimit.PolicyStats{{"default", 1}}}, m.Stats())
	require.Len(t, seen, 2)
	require.True(t, seen[0].Allowed)
	require.False(t, seen[1].Allowed)
	require.Equal(t, "default", seen[1].Name)

	mode = httplimit.Enforce // what Shadow charged counts
	require.Equal(t, 429, call(h, "GET", "a", 1).StatusCode)
	mode = httplimit.Off
	require.Equal(t, 200, call(h, "GET", "", 1).StatusCode)
	require.Equal(t, uint64(1), m.Stats().Off)
	require.Len(t, seen, 3)
	mode = 77
	require.Equal(t, 400, call(h, "GET", "", 1).StatusCode, "a mode without a name is Enforce")
}

func TestItsOwnErrorsLetRequestsThrough(t *testing.T) {
	boom := func() { panic("boom") }
	for name, o := range map[string]httplimit.Options{
		"Key":     {Key: func(*http.Request) (string, error) { boom(); return "", nil }},
		"ErrPass": {Key: func(*http.Request) (string, error) { return "", fmt.Errorf("store down: %w", httplimit.ErrPass) }},
		"Cost":    {Key: byUser, Cost: func(*http.Request) int64 { boom(); return 0 }},
		"cost":    {Key: byUser, Cost: func(*http.Request) int64 { return math.MinInt64 }},
		"When":    {Key: byUser, When: func(*http.Request) bool { boom(); return false }},
		"Mode":    {Key: byUser, Mode: func(*http.Request) httplimit.Mode { boom(); return 0 }},
	} {
		var failures []error
		o.OnError = func(_ *http.Request, err error) { failures = append(failures, err) }
		m := limits(t, keyed(t, ratelimit.Per(1, time.Hour)), o)
		h := m.Wrap(http.HandlerFunc(ok))
		for range 3 {
			require.Equal(t, "served", body(t, call(h, "GET", "a", 1)), name)
		}
		require.Len(t, failures, 3, name)
		require.Equal(t, uint64(3), m.Stats().Failed, name)
		switch name {
		case "ErrPass":
			require.ErrorIs(t, failures[0], httplimit.ErrPass)
		case "cost":
			require.ErrorIs(t, failures[0], httplimit.ErrCost)
		default:
			var p *httplimit.PanicError
			require.ErrorAs(t, failures[0], &p)
			require.Equal(t, "boom", p.Value)
			require.Contains(t, string(p.Stack), "policies_test.go")
			require.Equal(t, "httplimit: panic: boom", p.Error())
		}
	}
}

func TestAFailingPolicyLeavesTheOthersInForce(t *testing.T) {
	m := limits(t, keyed(t, ratelimit.Per(1, time.Hour)), httplimit.Options{
		Key: byUser, Cost: func(*http.Request) int64 { panic("a query that an adversary chose") },
		Also: []httplimit.Policy{{Name: "site", Limiter: keyed(t, ratelimit.Per(2, time.Hour)), Key: everybody}},
	})
	h := m.Wrap(http.HandlerFunc(ok))
	require.Equal(t, 200, call(h, "GET", "a", 1).StatusCode)
	require.Equal(t, 200, call(h, "GET", "a", 1).StatusCode)
	require.Equal(t, 429, call(h, "GET", "a", 1).StatusCode)
}

func TestALimitThatPanicsLetsRequestsThrough(t *testing.T) {
	broken := false
	l, err := ratelimit.NewKeyedBy(func(string) ratelimit.Limit {
		if broken {
			panic("no such tier")
		}
		return ratelimit.Per(1, time.Hour)
	}, ratelimit.KeyedOptions{Capacity: 10})
	require.NoError(t, err)
	m := limits(t, l, httplimit.Options{Key: byUser})
	h := m.Wrap(http.HandlerFunc(ok))
	require.Equal(t, 200, call(h, "GET", "a", 1).StatusCode)
	require.Equal(t, 429, call(h, "GET", "a", 1).StatusCode)
	broken = true
	require.Equal(t, 200, call(h, "GET", "a", 1).StatusCode)
	broken = false
	require.Equal(t, 429, call(h, "GET", "a", 1).StatusCode)
	require.Equal(t, uint64(1), m.Stats().Failed)
}

func TestHooksThatPanicChangeNothing(t *testing.T) {
	m := limits(t, keyed(t, ratelimit.Per(1, time.Hour)), httplimit.Options{
		Key:        byUser,
		OnDecision: func(*http.Request, httplimit.Mode, ratelimit.Decision) { panic("hook") },
		OnError:    func(*http.Request, error) { panic("the other hook") },
	})
	h := m.Wrap(http.HandlerFunc(ok))
	require.Equal(t, 200, call(h, "GET", "a", 1).StatusCode)
	require.Equal(t, 429, call(h, "GET", "a", 1).StatusCode)
	require.Equal(t, uint64(4), m.Stats().Failed)
}

func TestPanicsOfTheHandlerAreNotOurs(t *testing.T) {
	m := limits(t, keyed(t, ratelimit.Per(100, time.Hour)), httplimit.Options{
		Key: byUser, Settle: true,
		OnError: func(*http.Request, error) { t.Error("reported") },
	})
	h := m.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { call(h, "GET", "a", 1) })
	require.Zero(t, m.Stats().Failed)
}

func TestAtMostSoManyInProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, err := shed.NewKeyedConcurrency[string](2)
		require.NoError(t, err)
		l := keyed(t, ratelimit.Per(100, time.Hour))
		m := limits(t, l, httplimit.Options{Name: "jobs", Key: byUser, InProgress: gate})
		hold := make(chan bool)
		h := m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if <-hold {
				panic(http.ErrAbortHandler)
			}
			ok(w, r)
		}))
		for i := range 2 {
			go func() {
				defer func() { _ = recover() }()
				call(h, "GET", "a", int64(i))
			}()
		}
		synctest.Wait()
		res := call(h, "GET", "a", 1)
		require.Equal(t, 429, res.StatusCode)
		require.Equal(t, "1", res.Header.Get("Retry-After"))
		var problem struct {
			Detail   string
			Violated []string `json:"violated-policies"`
		}
		require.NoError(t, json.Unmarshal([]byte(body(t, res)), &problem))
		require.Equal(t, "There are 2 requests in progress already.", problem.Detail)
		require.Equal(t, []string{"jobs"}, problem.Violated)
		require.Equal(t, int64(98), l.Peek("a", 0).Remaining, "the refused took nothing")
		hold <- true
		hold <- false
		synctest.Wait()
		require.Zero(t, gate.Stats().InFlight, "a panic gives the place back")
		require.Equal(t, uint64(1), m.Stats().Busy)
	})
}

func TestJitterIsNeverTooEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := limits(t, keyed(t, ratelimit.Per(1, 40*time.Second)), httplimit.Options{Key: byUser, Jitter: 0.25}).Wrap(http.HandlerFunc(ok))
		require.Equal(t, 200, call(h, "GET", "a", 1).StatusCode)
		seen := map[string]bool{}
		for range 1000 {
			res := call(h, "GET", "a", 1)
			retry := res.Header.Get("Retry-After")
			n, err := strconv.Atoi(retry)
			require.NoError(t, err)
			require.GreaterOrEqual(t, n, 40)
			require.LessOrEqual(t, n, 50)
			require.Equal(t, `"default";r=0;t=40`, res.Header.Get("RateLimit"), "t is exact")
			seen[retry] = true
		}
		require.Len(t, seen, 11)
	})
}

func TestNewLimitsRefusesWhatCannotWork(t *testing.T) {
	l := keyed(t, ratelimit.Per(1, time.Second))
	also := func(p httplimit.Policy) httplimit.Options {
		return httplimit.Options{Key: byUser, Also: []httplimit.Policy{{Name: "x", Limiter: l, Key: byUser}, p}}
	}
	for _, tc := range []struct {
		o    httplimit.Options
		want string
	}{
		{httplimit.Options{Key: byUser, Jitter: -0.1}, "Options.Jitter is -0.1, expected 0 to 1"},
		{httplimit.Options{Key: byUser, Jitter: 1.5}, "Options.Jitter is 1.5"},
		{httplimit.Options{Key: byUser, Jitter: math.NaN()}, "Options.Jitter is NaN"},
		{also(httplimit.Policy{Name: "y", Key: byUser}), "Options.Also[1].Limiter is nil"},
		{also(httplimit.Policy{Name: "y", Limiter: l}), "Options.Also[1].Key is nil"},
		{also(httplimit.Policy{Limiter: l, Key: byUser}), `Options.Also[1].Name is ""`},
		{also(httplimit.Policy{Name: "ü", Limiter: l, Key: byUser}), `Options.Also[1].Name is "ü"`},
		{also(httplimit.Policy{Name: "x", Limiter: l, Key: byUser}), `Options.Also[1].Name is "x", which another policy has`},
		{also(httplimit.Policy{Name: "default", Limiter: l, Key: byUser}), `Options.Also[1].Name is "default"`},
		{httplimit.Options{Key: byUser, Also: make([]httplimit.Policy, 17)}, "Options.Also has 17 policies, expected at most 16"},
	} {
		_, err := httplimit.NewLimits(l, tc.o)
		require.ErrorContains(t, err, tc.want)
	}
}

func TestAnAdmissionAllocatesItsFieldsAlone(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for name, tc := range map[string]struct {
		o    httplimit.Options
		most float64
	}{
		"one policy":   {httplimit.Options{Key: byUser}, 2},
		"two policies": {httplimit.Options{Key: byUser, Also: []httplimit.Policy{{Name: "site", Limiter: keyed(t, ratelimit.Per(1e9, time.Second)), Key: everybody}}}, 4}, // and the wants, which All keeps for a moment
	} {
		h := limits(t, keyed(t, ratelimit.Per(1e9, time.Second)), tc.o).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("User", "a")
		w := &writer{header: http.Header{}}
		require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
			clear(w.header)
			h.ServeHTTP(w, r)
		}), tc.most, name)
	}
}

func TestKeys(t *testing.T) {
	type userKey struct{}
	user := httplimit.User(func(ctx context.Context) (string, bool) { u, ok := ctx.Value(userKey{}).(string); return u, ok })
	with := func(h http.Header, u any) *http.Request {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = h
		return r.WithContext(context.WithValue(r.Context(), userKey{}, u))
	}
	for _, tc := range []struct {
		why  string
		key  httplimit.KeyFunc
		r    *http.Request
		want string // none is an error
	}{
		{"header", httplimit.Header("x-api-key"), with(http.Header{"X-Api-Key": {"k"}}, nil), "k"},
		{"no header", httplimit.Header("x-api-key"), with(http.Header{}, nil), ""},
		{"an empty header", httplimit.Header("x-api-key"), with(http.Header{"X-Api-Key": {""}}, nil), ""},
		{"two headers", httplimit.Header("x-api-key"), with(http.Header{"X-Api-Key": {"k", "l"}}, nil), ""},
		{"bearer", httplimit.Bearer, with(http.Header{"Authorization": {"bEARER  tok.en="}}, nil), "tok.en="},
		{"basic", httplimit.Bearer, with(http.Header{"Authorization": {"Basic tok.en"}}, nil), ""},
		{"bearer of nothing", httplimit.Bearer, with(http.Header{"Authorization": {"Bearer "}}, nil), ""},
		{"two bearers", httplimit.Bearer, with(http.Header{"Authorization": {"Bearer a", "Bearer b"}}, nil), ""},
		{"user", user, with(nil, "ann"), "ann"},
		{"no user", user, with(nil, nil), ""},
		{"an empty user", user, with(nil, ""), ""},
		{"hashed", httplimit.Hashed(user), with(nil, "abc"), "ba7816bf8f01cfea414140de5dae2223"}, // FIPS 180-2, appendix B.1
		{"hashed nobody", httplimit.Hashed(user), with(nil, nil), ""},
		{"joined", httplimit.Join(user, httplimit.Header("X")), with(http.Header{"X": {"y"}}, "ann"), "3:ann1:y"},
		{"joined, one missing", httplimit.Join(user, httplimit.Header("X")), with(nil, "ann"), ""},
		{"joined, one empty", httplimit.Join(user, func(*http.Request) (string, error) { return "", nil }), with(nil, "ann"), "-"},
		{"joined of nothing", httplimit.Join(), with(nil, "ann"), "-"},
	} {
		k, err := tc.key(tc.r)
		if tc.want == "-" {
			require.NoError(t, err, tc.why)
			require.Empty(t, k, tc.why)
			continue
		}
		require.Equal(t, tc.want, k, tc.why)
		if tc.want == "" {
			require.ErrorIs(t, err, httplimit.ErrNoKey, tc.why)
			require.NotContains(t, err.Error(), "tok.", tc.why)
		}
	}
}

func TestJoinIsUnambiguous(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) []string {
			return rapid.SliceOfN(rapid.StringMatching(`[a1:]{1,3}`), 0, 3).Draw(t, name)
		}
		join := func(parts []string) string {
			var keys []httplimit.KeyFunc
			for _, p := range parts {
				keys = append(keys, func(*http.Request) (string, error) { return p, nil })
			}
			k, err := httplimit.Join(keys...)(nil)
			require.NoError(t, err)
			return k
		}
		a, b := draw("a"), draw("b")
		require.Equal(t, fmt.Sprint(len(a), a) == fmt.Sprint(len(b), b), join(a) == join(b))
	})
}
