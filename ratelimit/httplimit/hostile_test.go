package httplimit_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// A limit may change between any two calls of limitOf, as when a configuration is loaded.
func TestALimitThatChangesDuringARequestHarmsNobody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SampledFrom([]ratelimit.Limit{
			ratelimit.Per(1, 24*time.Hour), ratelimit.Per(1, time.Second), ratelimit.Per(1, 24*time.Hour).Burst(5),
			ratelimit.Per(1_000_000_000, time.Second).Burst(1 << 58), ratelimit.Per(1_000_000, time.Hour),
			{},
		})
		l, err := ratelimit.NewKeyedBy(func(string) ratelimit.Limit { return some.Draw(t, "limit") }, ratelimit.KeyedOptions{Capacity: 10})
		require.NoError(t, err)
		o := httplimit.Options{Key: byUser, Cost: byCost, Settle: rapid.Bool().Draw(t, "settle")}
		if rapid.Bool().Draw(t, "two") {
			o.Also = []httplimit.Policy{{Name: "site", Limiter: l, Key: everybody}}
		}
		h := limits(t, l, o).Wrap(http.HandlerFunc(ok))
		for range 6 {
			res := call(h, "GET", "a", rapid.Int64Range(0, 2_000_000).Draw(t, "cost"))
			for _, field := range []string{"RateLimit", "RateLimit-Policy"} {
				_, err := parseList(res.Header.Values(field)...)
				require.NoError(t, err, res.Header)
			}
		}
	})
}

// A function of a limiter may panic at any of its calls: the request goes on as it was
// decided, or without a decision, and nothing is charged that was not served.
func TestALimitThatPanicsAtAnyCallHarmsNobody(t *testing.T) {
	for _, settle := range []bool{false, true} {
		for at := range 8 {
			calls := 0
			l, err := ratelimit.NewKeyedBy(func(string) ratelimit.Limit {
				if calls++; calls == at {
					panic("now and then")
				}
				return ratelimit.Per(1, time.Hour)
			}, ratelimit.KeyedOptions{Capacity: 10})
			require.NoError(t, err)
			site := keyed(t, ratelimit.Per(100, time.Hour))
			served := 0
			m := limits(t, l, httplimit.Options{
				Key: byUser, Settle: settle,
				Also: []httplimit.Policy{{Name: "site", Limiter: site, Key: everybody}},
			})
			h := m.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ }))
			require.NotPanics(t, func() { call(h, "GET", "a", 1) }, "call %d", at)
			require.NotPanics(t, func() { call(h, "GET", "a", 1) }, "call %d", at)
			require.GreaterOrEqual(t, served, int(100-site.Peek("all", 0).Remaining), "settle %v, call %d", settle, at)
			require.Positive(t, served)
			s := m.Stats()
			require.Equal(t, uint64(2), s.Allowed+s.Refused)
			if at > 0 && calls >= at {
				require.Equal(t, uint64(1), s.Failed, "settle %v, call %d", settle, at)
			}
		}
	}
}

// What a middleware around it has said about the answer of the handler does not hold for
// the refusal: it would be stored, and read as compressed.
func TestARefusalIsNotStored(t *testing.T) {
	for name, h := range map[string]http.Handler{
		"limit": newHandler(t, ratelimit.Per(1, time.Hour), httplimit.Options{Key: byUser, Cost: func(*http.Request) int64 { return 2 }}, ok),
		"nokey": newHandler(t, ratelimit.Per(1, time.Hour), httplimit.Options{Key: func(*http.Request) (string, error) { return "", nil }}, ok),
		"shed":  shedding(t, refusing(0), httplimit.ShedOptions{}).Wrap(http.HandlerFunc(ok)),
	} {
		w := httptest.NewRecorder()
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		w.Header().Set("Expires", "Fri, 31 Dec 9999 23:59:59 GMT")
		w.Header().Set("Etag", `"v1"`)
		w.Header().Set("Last-Modified", "Sat, 01 Jan 2000 00:00:09 GMT")
		w.Header().Set("Content-Encoding", "gzip")
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("User", "a")
		h.ServeHTTP(w, r)
		require.GreaterOrEqual(t, w.Code, 400, name)
		for _, field := range []string{"Cache-Control", "Expires", "Etag", "Last-Modified", "Content-Encoding"} {
			require.Empty(t, w.Header().Get(field), "%s: %s", name, field)
		}
	}
}

// A client that goes away while the gate would have made it wait is let on in Shadow, as
// without the middleware: what it asked for may be worth doing.
func TestShadowLetsOnWhoGoesAwayInTheQueue(t *testing.T) {
	for mode, served := range map[httplimit.Mode]bool{httplimit.Shadow: true, httplimit.Enforce: false} {
		waits := gateFunc(func(ctx context.Context, _ shed.Class) (shed.Permit, error) {
			<-ctx.Done()
			return shed.Permit{}, ctx.Err()
		})
		s := shedding(t, waits, httplimit.ShedOptions{Mode: func(*http.Request) httplimit.Mode { return mode }})
		got := false
		h := s.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got = true }))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil).WithContext(ctx))
		require.Equal(t, served, got)
		require.Equal(t, httplimit.ShedStats{Gone: 1}, s.Stats())
	}
}

// A key without a limit, the zero one, is refused: with fields that are well-formed.
func TestAKeyWithoutALimitIsRefusedInOrder(t *testing.T) {
	for _, limit := range []ratelimit.Limit{{}, ratelimit.Per(0, time.Second), ratelimit.Per(-1, time.Second), ratelimit.Per(1, 0), ratelimit.Per(1, -1), ratelimit.Per(1, time.Second).Burst(-1), ratelimit.Per(1, 365*24*time.Hour)} {
		l, err := ratelimit.NewKeyedBy(func(string) ratelimit.Limit { return limit }, ratelimit.KeyedOptions{Capacity: 10})
		require.NoError(t, err)
		for _, o := range []httplimit.Options{
			{Key: byUser, Cost: byCost},
			{Key: byUser, Cost: byCost, Settle: true},
			{Key: byUser, Cost: byCost, Also: []httplimit.Policy{{Name: "x", Key: byUser, Limiter: l}}},
		} {
			m := limits(t, l, o)
			for _, cost := range []int64{0, 1} {
				res := call(m.Wrap(http.HandlerFunc(ok)), "GET", "a", cost)
				require.Equal(t, cost > 0 || len(o.Also) > 0, res.StatusCode == 429)
				require.Empty(t, res.Header.Get("Retry-After"), "no wait helps")
				require.Contains(t, res.Header.Get("RateLimit-Policy"), `"default";q=0`)
				require.Zero(t, m.Stats().Failed)
				for _, field := range []string{"RateLimit", "RateLimit-Policy"} {
					members, err := parseList(res.Header.Values(field)...)
					require.NoError(t, err, res.Header)
					for _, m := range members {
						for k, v := range m.params {
							require.GreaterOrEqual(t, v, int64(0), k)
						}
						if w, ok := m.params["w"]; ok {
							require.Positive(t, w)
						}
					}
				}
			}
		}
	}
}
