package httpbalance_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/httpbalance"
)

// registry is a resolver whose answers the test decides, and that notes when it was
// asked.
type registry struct {
	mu    sync.Mutex
	urls  []string
	err   error
	hangs bool
	asked []time.Time
}

func (r *registry) Resolve(ctx context.Context) ([]balance.Backend[*url.URL], error) {
	r.mu.Lock()
	r.asked = append(r.asked, time.Now())
	urls, err, hangs := r.urls, r.err, r.hangs
	r.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return httpbalance.Static(urls...)
}

func (r *registry) set(err error, urls ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err, r.urls = err, urls
}

func (r *registry) times() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]time.Time{}, r.asked...)
}

func idsOf(b *balance.Balancer[*url.URL]) (ids []string) {
	for one := range b.Stats() {
		ids = append(ids, one.ID)
	}
	return ids
}

// follow runs Follow in a bubble until the test ends.
func follow(t *testing.T, r httpbalance.Resolver, o httpbalance.FollowOptions) *balance.Balancer[*url.URL] {
	b, _ := newBalancer(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- httpbalance.Follow(ctx, b, r, o) }()
	t.Cleanup(func() {
		cancel()
		synctest.Wait()
		select {
		case err := <-ended:
			require.NoError(t, err)
		default:
			t.Error("Follow goes on after its context has ended")
		}
	})
	synctest.Wait()
	return b
}

func TestFollowAsksAtOnceAndThenEveryIntervalWithJitter(t *testing.T) {
	t.Parallel()
	for _, interval := range []time.Duration{0, 5 * time.Second, time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			r := &registry{urls: []string{"http://a"}}
			start := time.Now()
			b := follow(t, r, httpbalance.FollowOptions{Interval: interval})
			require.Equal(t, []string{"a:80"}, idsOf(b))
			want := interval
			if interval == 0 {
				want = 30 * time.Second
			}
			time.Sleep(100 * want)
			synctest.Wait()
			times := r.times()
			require.Equal(t, start, times[0])
			require.InDelta(t, 100, len(times), 12)
			gaps := map[time.Duration]bool{}
			for i := 1; i < len(times); i++ {
				gap := times[i].Sub(times[i-1])
				require.GreaterOrEqual(t, gap, want*9/10)
				require.LessOrEqual(t, gap, want*11/10)
				gaps[gap] = true
			}
			require.Greater(t, len(gaps), 50, "not all at one time")
		})
	}
}

func TestFollowUpdatesWhatHasChanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &registry{urls: []string{"http://a", "http://b"}}
		b := follow(t, r, httpbalance.FollowOptions{})
		p, err := b.Pick()
		require.NoError(t, err)
		r.set(nil, "http://b", "http://a", "http://c")
		time.Sleep(34 * time.Second)
		require.Equal(t, []string{"b:80", "a:80", "c:80"}, idsOf(b))
		require.EqualValues(t, 1, sum(b).InFlight, "what is known of a backend stays")
		r.set(nil, "http://b", "https://a:80", "http://c") // the same IDs, another scheme
		time.Sleep(34 * time.Second)
		for one := range b.Stats() {
			require.Equal(t, one.ID == "a:80", one.Value.Scheme == "https")
		}
		p.Done(nil)
	})
}

func TestFollowKeepsTheLastGoodAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		r := &registry{urls: []string{"http://a", "http://b"}}
		b := follow(t, r, httpbalance.FollowOptions{Log: log})
		time.Sleep(10 * time.Minute)
		for what, change := range map[string]func(){
			"error": func() { r.set(errors.New("no answer")) },
			"empty": func() { r.set(nil) },
			"bad":   func() { r.set(nil, "http://a", "ftp://b") },
		} {
			change()
			time.Sleep(10 * time.Minute)
			require.Equal(t, []string{"a:80", "b:80"}, idsOf(b), what)
		}
		require.Contains(t, out.String(), "no answer")
		require.Contains(t, out.String(), "no backends")
		require.Contains(t, out.String(), "URL number 1")
		require.Equal(t, 1, strings.Count(out.String(), "level=INFO"), "of the first answer, not of those like it")
		r.set(nil, "http://c")
		time.Sleep(34 * time.Second)
		require.Equal(t, []string{"c:80"}, idsOf(b))
		require.Contains(t, out.String(), "before=2 backends=1")
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A set that Update refuses changes nothing, and a slice may be used again.
func TestFollowSurvivesWhatAResolverMayReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		good, err := httpbalance.Static("http://a")
		require.NoError(t, err)
		var mu sync.Mutex
		answer := good
		b := follow(t, httpbalance.ResolverFunc(func(context.Context) ([]balance.Backend[*url.URL], error) {
			mu.Lock()
			defer mu.Unlock()
			return answer, nil
		}), httpbalance.FollowOptions{})
		mu.Lock()
		answer = []balance.Backend[*url.URL]{good[0], {ID: ""}}
		mu.Unlock()
		time.Sleep(time.Hour)
		require.Equal(t, []string{"a:80"}, idsOf(b))
		mu.Lock()
		answer = good
		mu.Unlock()
		time.Sleep(time.Hour)
		synctest.Wait()
		mu.Lock()
		good[0].ID = "renamed" // in the slice that was returned before
		mu.Unlock()
		time.Sleep(time.Hour)
		require.Equal(t, []string{"renamed"}, idsOf(b))
		mu.Lock()
		answer = []balance.Backend[*url.URL]{{ID: "nil"}} // a nil URL is for RoundTrip to refuse
		mu.Unlock()
		time.Sleep(time.Hour)
		require.Equal(t, []string{"nil"}, idsOf(b))
	})
}

func TestFollowBacksOffWhileLookupsFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &registry{err: errors.New("no answer")}
		b := follow(t, r, httpbalance.FollowOptions{})
		time.Sleep(200 * time.Second)
		times := r.times()
		for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
			gap := times[i+1].Sub(times[i])
			require.GreaterOrEqual(t, gap, want*time.Second*9/10, i)
			require.LessOrEqual(t, gap, want*time.Second*11/10, i)
		}
		require.Empty(t, idsOf(b))
		r.set(nil, "http://a")
		time.Sleep(34 * time.Second)
		require.Equal(t, []string{"a:80"}, idsOf(b))
		n := len(r.times())
		r.set(errors.New("again"))
		time.Sleep(40 * time.Second)
		times = r.times()[n:]
		require.Greater(t, len(times), 1)
		require.InDelta(t, time.Second, times[1].Sub(times[0]), float64(100*time.Millisecond), "the back-off starts anew")
	})
}

func TestFollowGivesUpALookupThatHangs(t *testing.T) {
	t.Parallel()
	for interval, limit := range map[time.Duration]time.Duration{0: 10 * time.Second, 2 * time.Second: 2 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			r := &registry{hangs: true}
			follow(t, r, httpbalance.FollowOptions{Interval: interval})
			time.Sleep(time.Minute)
			times := r.times()
			require.Greater(t, len(times), 2)
			gap := times[1].Sub(times[0]) // the limit and the first back-off
			require.GreaterOrEqual(t, gap, limit+900*time.Millisecond)
			require.LessOrEqual(t, gap, limit+1100*time.Millisecond)
		})
	}
}

func TestFollowOfAnEndedContextAsksNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBalancer(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r := &registry{}
		for range 50 { // of two things that are ready, select takes any
			require.NoError(t, httpbalance.Follow(ctx, b, r, httpbalance.FollowOptions{}))
		}
		require.Empty(t, r.times())
	})
}

func TestFollowNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	b, _ := newBalancer(t)
	r := &registry{}
	require.EqualError(t, httpbalance.Follow(t.Context(), nil, r, httpbalance.FollowOptions{}), "httpbalance: the balancer to follow with is nil, expected one from balance.New")
	require.EqualError(t, httpbalance.Follow(t.Context(), b, nil, httpbalance.FollowOptions{}), "httpbalance: the resolver to follow is nil, expected one such as DNS")
	require.EqualError(t, httpbalance.Follow(t.Context(), b, r, httpbalance.FollowOptions{Interval: -1}), "httpbalance: FollowOptions.Interval is -1ns, expected 0 (for 30s) or a positive time")
}

// Such an interval means: once, and again only after a failure.
func TestFollowWithTheLongestIntervalAsksOnce(t *testing.T) {
	t.Parallel()
	for range 8 { // the jitter is by chance
		synctest.Test(t, func(t *testing.T) {
			r := &registry{urls: []string{"http://a"}}
			follow(t, r, httpbalance.FollowOptions{Interval: math.MaxInt64})
			time.Sleep(1000 * time.Hour)
			require.Len(t, r.times(), 1)
		})
	}
}
