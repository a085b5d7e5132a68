package httplimit_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// writer is a ResponseWriter that keeps nothing.
type writer struct{ header http.Header }

func (w *writer) Header() http.Header         { return w.header }
func (w *writer) Write(p []byte) (int, error) { return len(p), nil }
func (w *writer) WriteHeader(int)             {}

func BenchmarkServe(b *testing.B) {
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	key := func(*http.Request) (string, error) { return "ann", nil }
	wrap := func(limit ratelimit.Limit) http.Handler {
		l, err := ratelimit.NewKeyed[string](limit, ratelimit.KeyedOptions{Capacity: 1000})
		require.NoError(b, err)
		m, err := httplimit.New(l, httplimit.Options{Key: key})
		require.NoError(b, err)
		return m(next)
	}
	// The floor decides and sets two fields that were written before.
	l, err := ratelimit.NewKeyed[string](ratelimit.Per(1_000_000_000, time.Second).Burst(1<<30), ratelimit.KeyedOptions{Capacity: 1000})
	require.NoError(b, err)
	floor := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, _ := key(r); l.Take(user, 1).Allowed {
			w.Header()["Ratelimit"] = []string{`"default";r=100;t=1`}
			w.Header()["Ratelimit-Policy"] = []string{`"default";q=100;w=1`}
			next.ServeHTTP(w, r)
		}
	})
	wide := func() *ratelimit.Keyed[string] {
		return keyed(b, ratelimit.Per(1_000_000_000, time.Second).Burst(1<<30))
	}
	two := limits(b, wide(), httplimit.Options{Key: key, Also: []httplimit.Policy{{Name: "site", Limiter: wide(), Key: everybody}}})
	settle := limits(b, wide(), httplimit.Options{Key: key, Settle: true})
	gate := shedding(b, concurrency(b, shed.ConcurrencyOptions{Limit: 10}), httplimit.ShedOptions{})
	for _, bm := range []struct {
		name string
		h    http.Handler
	}{
		{"op=floor", floor},
		{"op=admit", wrap(ratelimit.Per(1_000_000_000, time.Second).Burst(1 << 30))},
		{"op=admit-two", two.Wrap(next)},
		{"op=admit-settle", settle.Wrap(next)},
		{"op=shed-admit", gate.Wrap(next)},
		{"op=refuse", wrap(ratelimit.Per(1, time.Hour))},
	} {
		b.Run(bm.name, func(b *testing.B) {
			r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "/", nil)
			require.NoError(b, err)
			w := &writer{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				bm.h.ServeHTTP(w, r)
			}
		})
	}
}
