package benchmarks

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/go-chi/httprate"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
	ours "github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// nobody is a ResponseWriter that keeps nothing but the header.
type nobody struct{ header http.Header }

func (w *nobody) Header() http.Header         { return w.header }
func (w *nobody) Write(p []byte) (int, error) { return len(p), nil }
func (w *nobody) WriteHeader(int)             {}

func serve(t testing.TB, h http.Handler) ratio.Op {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	require.NoError(t, err)
	w := &nobody{header: http.Header{}}
	return func(n int) {
		for range n {
			clear(w.header)
			h.ServeHTTP(w, r)
		}
	}
}

func byAnn(*http.Request) (string, error) { return "ann", nil }

func httplimitServe(t testing.TB, limit ours.Limit) ratio.Op {
	wrap, err := httplimit.New(keyedOf(t, limit, 1000), httplimit.Options{Key: byAnn})
	require.NoError(t, err)
	return serve(t, wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
}

func httprateServe(t testing.TB, limit int) ratio.Op {
	return serve(t, httprate.LimitBy(limit, time.Hour, byAnn)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
}

func adaptive(t testing.TB) ratio.Op {
	a, err := shed.NewAdaptive(shed.AdaptiveOptions{})
	require.NoError(t, err)
	ctx := t.Context()
	return func(n int) {
		for range n {
			p, err := a.Acquire(ctx, shed.Default)
			if err != nil {
				panic(err)
			}
			p.Release(shed.Success)
		}
	}
}

func failsafeAdaptive(t testing.TB) ratio.Op {
	a := adaptivelimiter.NewBuilder[any]().Build()
	ctx := t.Context()
	return func(n int) {
		for range n {
			p, err := a.AcquirePermit(ctx)
			if err != nil {
				panic(err)
			}
			p.Record()
		}
	}
}

func BenchmarkHTTPLimit(b *testing.B) {
	for name, op := range map[string]ratio.Op{
		"evenkeel": httplimitServe(b, ours.Per(perSecond, time.Second)), "httprate": httprateServe(b, 1<<50),
	} {
		b.Run(fmt.Sprintf("impl=%s", name), run(op))
	}
}

func BenchmarkAdaptive(b *testing.B) {
	for name, op := range map[string]ratio.Op{"evenkeel": adaptive(b), "failsafe": failsafeAdaptive(b)} {
		b.Run(fmt.Sprintf("impl=%s", name), run(op))
	}
}

func TestRatioRateLimitStack(t *testing.T) {
	t.Run("httplimit against httprate, admitted", func(t *testing.T) {
		ratio.AtMost(t, 0.6, httplimitServe(t, ours.Per(perSecond, time.Second)), httprateServe(t, 1<<50))
	})
	t.Run("httplimit against httprate, refused", func(t *testing.T) {
		ratio.AtMost(t, 0.9, httplimitServe(t, ours.Per(1, time.Hour)), httprateServe(t, 1))
	})
	t.Run("adaptive against failsafe", func(t *testing.T) { ratio.AtMost(t, 0.8, adaptive(t), failsafeAdaptive(t)) })
	t.Run("adaptive against failsafe, contended", func(t *testing.T) {
		ratio.AtMostSlices(t, 1, both(adaptive(t)), both(failsafeAdaptive(t)), contendedSlice, contendedPairs)
	})
}
