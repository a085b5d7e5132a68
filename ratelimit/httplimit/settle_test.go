package httplimit_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
)

func TestCostsAreSettledAfterTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := keyed(t, ratelimit.Per(100, 100*time.Second))
		var handle http.HandlerFunc
		m := limits(t, l, httplimit.Options{Key: byUser, Cost: byCost, Settle: true})
		h := m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(w, r) }))
		left := func() int64 { return l.Peek("a", 0).Remaining }
		says := func(costs ...int64) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				for _, n := range costs {
					httplimit.SetCost(r.Context(), n)
				}
				ok(w, r)
			}
		}
		for _, tc := range []struct {
			why      string
			handle   http.HandlerFunc
			estimate int64
			want     int64
			limit    string
		}{
			{"nothing said", ok, 10, 90, `"default";r=90;t=1`},
			{"less", says(3), 10, 87, `"default";r=80;t=1`},
			{"nothing", says(0), 10, 87, `"default";r=77;t=1`},
			{"more", says(17), 10, 70, `"default";r=77;t=1`},
			{"as estimated", says(10), 10, 60, `"default";r=60;t=1`},
			{"the last counts", says(100, 1, 20, 5), 10, 55, `"default";r=50;t=1`},
			{"negative is ignored", says(5, -1), 10, 50, `"default";r=45;t=1`},
			{"an estimate of nothing", says(10), 0, 40, `"default";r=50;t=1`},
		} {
			handle = tc.handle
			res := call(h, "GET", "a", tc.estimate)
			require.Equal(t, 200, res.StatusCode, tc.why)
			require.Equal(t, tc.want, left(), tc.why)
			require.Equal(t, tc.limit, res.Header.Get("RateLimit"), tc.why)
		}

		handle = func(_ http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }
		require.Panics(t, func() { call(h, "GET", "a", 5) })
		require.Equal(t, int64(35), left(), "a panic is settled at the estimate")
		handle = func(_ http.ResponseWriter, r *http.Request) {
			httplimit.SetCost(r.Context(), 1)
			panic(http.ErrAbortHandler)
		}
		require.Panics(t, func() { call(h, "GET", "a", 5) })
		require.Equal(t, int64(34), left(), "or at what was said before")

		handle = says(54) // a debt of 20, which flows in within 20 seconds
		require.Equal(t, 200, call(h, "GET", "a", 1).StatusCode)
		require.Zero(t, left())
		res := call(h, "GET", "a", 1)
		require.Equal(t, 429, res.StatusCode)
		require.Equal(t, "21", res.Header.Get("Retry-After"))
		require.Equal(t, `"default";r=0;t=21`, res.Header.Get("RateLimit"))
		handle = ok
		free := call(h, "GET", "a", 0)
		require.Equal(t, 200, free.StatusCode)
		require.Equal(t, `"default";r=0;t=21`, free.Header.Get("RateLimit"), "free, and told of the debt")
		require.Contains(t, body(t, res), `"violated-policies":["default"]`)
		require.Equal(t, uint64(1), m.Stats().Policies[0].Refused)
	})
}

func TestSettleAmongPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		queries, site := keyed(t, ratelimit.Per(100, time.Hour)), keyed(t, ratelimit.Per(2, time.Hour))
		h := limits(t, queries, httplimit.Options{
			Name: "queries", Key: byUser, Cost: byCost, Settle: true,
			Also: []httplimit.Policy{{Name: "site", Limiter: site, Key: everybody}},
		}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { httplimit.SetCost(r.Context(), 30) }))
		require.Equal(t, `"queries";r=60;t=36, "site";r=1;t=1800`, call(h, "GET", "a", 40).Header.Get("RateLimit"))
		require.Equal(t, `"queries";r=70;t=36, "site";r=1;t=1800`, call(h, "GET", "a", 80).Header.Get("RateLimit"), "the estimate is refused")
		require.Equal(t, `"queries";r=0;t=36, "site";r=0;t=1800`, call(h, "GET", "a", 70).Header.Get("RateLimit"))
		res := call(h, "GET", "a", 20)
		require.Equal(t, 429, res.StatusCode)
		require.Contains(t, body(t, res), `["site"]`)
		require.Equal(t, "1800", res.Header.Get("Retry-After"))
		require.Equal(t, int64(40), queries.Peek("a", 0).Remaining, "the estimate is given back")
	})
}

func TestTheTightestDecidesWithSettleToo(t *testing.T) {
	for _, settle := range []bool{false, true} {
		var names []string
		h := limits(t, keyed(t, ratelimit.Per(100, time.Hour)), httplimit.Options{
			Name: "queries", Key: byUser, Cost: byCost, Settle: settle,
			Also:       []httplimit.Policy{{Name: "site", Limiter: keyed(t, ratelimit.Per(10, time.Hour)), Key: everybody}},
			OnDecision: func(_ *http.Request, _ httplimit.Mode, d ratelimit.Decision) { names = append(names, d.Name) },
		}).Wrap(http.HandlerFunc(ok))
		for _, cost := range []int64{5, 20, 100} { // 95 % and 90 %, 75 % and 80 %, refused
			call(h, "GET", "a", cost)
		}
		require.Equal(t, []string{"site", "queries", "queries"}, names)
	}
}

func TestSetCostSaysWhetherSomebodyWaits(t *testing.T) {
	require.False(t, httplimit.SetCost(context.Background(), 1))
	var plain, negative, settled bool
	var late context.Context
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		plain = httplimit.SetCost(r.Context(), 1)
		negative = httplimit.SetCost(r.Context(), -1)
	})
	call(limits(t, keyed(t, ratelimit.Per(10, time.Hour)), httplimit.Options{Key: byUser}).Wrap(handler), "GET", "a", 1)
	require.False(t, plain)
	l := keyed(t, ratelimit.Per(10, time.Hour))
	call(limits(t, l, httplimit.Options{Key: byUser, Settle: true}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler(w, r)
		settled, late = plain, r.Context()
	})), "GET", "a", 1)
	require.True(t, settled)
	require.False(t, negative)
	httplimit.SetCost(late, 9)
	require.Equal(t, int64(9), l.Peek("a", 0).Remaining, "after the handler it is too late")
}

// However requests are estimated and settled, what is left is what a counter says.
func TestSettledCostsAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := keyed(t, ratelimit.Per(1000, 24*365*time.Hour))
		var actual int64
		panics := false
		h := limits(t, l, httplimit.Options{Key: byUser, Cost: byCost, Settle: true}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if actual >= 0 {
				httplimit.SetCost(r.Context(), actual)
			}
			if panics {
				panic(http.ErrAbortHandler)
			}
		}))
		left := int64(1000)
		for range rapid.IntRange(1, 20).Draw(t, "requests") {
			estimate := rapid.Int64Range(0, 300).Draw(t, "estimate")
			actual, panics = rapid.Int64Range(-1, 300).Draw(t, "actual"), rapid.Bool().Draw(t, "panics")
			admitted := estimate == 0 || estimate <= left
			func() {
				defer func() { _ = recover() }()
				r := httptest.NewRecorder()
				req := httptest.NewRequest("GET", "/", nil)
				req.Header.Set("User", "a")
				req.Header.Set("Cost", strconv.FormatInt(estimate, 10))
				h.ServeHTTP(r, req)
				require.Equal(t, admitted, r.Code == 200)
			}()
			switch {
			case !admitted:
			case actual >= 0:
				left -= actual
			default:
				left -= estimate
			}
			require.Equal(t, max(left, 0), l.Peek("a", 0).Remaining)
		}
	})
}
