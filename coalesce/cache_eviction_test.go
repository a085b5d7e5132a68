package coalesce_test

import (
	"container/list"
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// A countedCache tells hits from misses.
type countedCache struct {
	*coalesce.Cache[int, int]
	loads int
}

func newCountedCache(t testing.TB, capacity int) *countedCache {
	c := new(countedCache)
	c.Cache = newCache(t, coalesce.CacheOptions[int, int]{Capacity: capacity}, func(_ context.Context, key int) (int, error) {
		c.loads++
		return -key, nil
	})
	return c
}

// request asks for a key and tells whether it was in memory.
func (c *countedCache) request(key int) bool {
	before := c.loads
	v, err := c.Get(context.Background(), key)
	if err != nil || v != -key {
		panic(fmt.Sprint(v, err))
	}
	return c.loads == before
}

// An lru is the policy that everybody knows.
type lru struct {
	capacity int
	order    list.List
	at       map[int]*list.Element
}

func (l *lru) request(key int) bool {
	if e := l.at[key]; e != nil {
		l.order.MoveToFront(e)
		return true
	}
	if l.order.Len() == l.capacity {
		delete(l.at, l.order.Remove(l.order.Back()).(int))
	}
	if l.at == nil {
		l.at = map[int]*list.Element{}
	}
	l.at[key] = l.order.PushFront(key)
	return false
}

// At any capacity and whatever is asked for, there are never more entries than
// that, and the cache is full once there have been enough keys.
func TestCapacityIsNeverExceededAndAlwaysUsed(t *testing.T) {
	for _, capacity := range []int{1, 2, 3, 9, 10, 11, 100, 1000} {
		c := newCountedCache(t, capacity)
		r := rand.New(rand.NewPCG(1, uint64(capacity)))
		keys := map[int]bool{}
		for range 5000 {
			key := int(r.ExpFloat64() * float64(capacity))
			keys[key] = true
			c.request(key)
			require.True(t, c.request(key), "what was just loaded is there")
			s := c.Stats()
			require.LessOrEqual(t, s.Entries, capacity)
			if s.Evictions > 0 {
				require.Equal(t, capacity, s.Entries)
			}
		}
		require.Greater(t, len(keys), capacity)
		c.Check()
		require.LessOrEqual(t, c.GhostSlots(), max(8, 4*capacity))
	}
}

// Costs are bounded exactly, whatever they are and however they change; what
// costs more than there is room for is returned and not kept.
func TestCostsAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.IntRange(1, 50).Draw(t, "capacity")
		var next int
		c, err := coalesce.NewCache(func(context.Context, int) (int, error) { return next, nil }, coalesce.CacheOptions[int, int]{
			Capacity: capacity,
			Cost:     func(_, v int) int { return v },
		})
		require.NoError(t, err)
		key := rapid.IntRange(0, 9)
		value := rapid.IntRange(-1, capacity+2)
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				k, v := key.Draw(t, "key"), value.Draw(t, "value")
				c.Set(k, v)
				got, ok := c.Peek(k)
				require.Equal(t, v <= capacity, ok)
				if ok {
					require.Equal(t, v, got)
				}
			},
			"get": func(t *rapid.T) {
				k := key.Draw(t, "key")
				next = value.Draw(t, "value")
				want, held := c.Peek(k)
				if !held {
					want = next
				}
				got, err := c.Get(context.Background(), k)
				require.NoError(t, err)
				require.Equal(t, want, got)
			},
			"refresh": func(t *rapid.T) {
				next = value.Draw(t, "value")
				got, err := c.Refresh(context.Background(), key.Draw(t, "key"))
				require.NoError(t, err)
				require.Equal(t, next, got)
			},
			"invalidate": func(t *rapid.T) { c.Invalidate(key.Draw(t, "key")) },
			"": func(t *rapid.T) {
				c.Check()
				sum, n := 0, 0
				for _, v := range c.All() {
					sum, n = sum+max(1, v), n+1
				}
				require.Equal(t, sum, c.Stats().Cost)
				require.Equal(t, n, c.Stats().Entries)
				require.LessOrEqual(t, sum, capacity)
			},
		})
	})
}

func TestPanicOfCostReachesTheCallers(t *testing.T) {
	c := newCache(t, coalesce.CacheOptions[string, int]{Capacity: 5, Cost: func(string, int) int { panic("cost") }, NegativeTTL: time.Hour}, new(backend).load)
	for _, key := range []string{"a", "a"} {
		_, err := c.Get(t.Context(), key)
		require.ErrorContains(t, err, "cost\n\n")
		require.IsType(t, (*coalesce.PanicError)(nil), err)
	}
	require.PanicsWithValue(t, "cost", func() { c.Set("a", 1) })
	require.Zero(t, c.Stats().Entries)
	require.Zero(t, c.Leases())
}

func TestNegativeEntriesAreBoundedLikeOthers(t *testing.T) {
	b := new(backend)
	b.fail(coalesce.ErrNotFound)
	c := newCache(t, stringOptions{Capacity: 30, NegativeTTL: time.Hour, Cost: func(key string, value int) int {
		require.Zero(t, value)
		return len(key)
	}}, b.load)
	for i := range 100 {
		_, err := c.Get(t.Context(), "key"+string(rune('0'+i%10))+string(rune('a'+i/10)))
		require.Equal(t, coalesce.ErrNotFound, err)
		require.LessOrEqual(t, c.Stats().Cost, 30)
	}
	require.Equal(t, 6, c.Stats().Entries)
	c.Check()
}

// Hits keep an entry in memory, but only as long as it can be served to anybody.
func TestHitsDoNotKeepWhatIsDead(t *testing.T) {
	const ns = time.Nanosecond
	for _, x := range []struct {
		negative bool
		age      time.Duration
		dead     bool
	}{
		{false, 3*time.Minute - ns, false}, // TTL and StaleIfError
		{false, 3 * time.Minute, true},
		{true, time.Second - ns, false}, // NegativeTTL alone
		{true, time.Second, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := new(backend)
			if x.negative {
				b.fail(coalesce.ErrNotFound)
			}
			c := newCache(t, stringOptions{Capacity: 100, TTL: time.Minute, Stale: time.Minute, StaleIfError: 2 * time.Minute, NegativeTTL: time.Second}, b.load)
			for i := range 50 {
				for range 4 {
					_, _ = c.Get(t.Context(), "hot"+strconv.Itoa(i))
				}
			}
			time.Sleep(x.age)
			for i := range 50 {
				c.Set("cold"+strconv.Itoa(i), i)
			}
			for i := range 40 {
				c.Set("new"+strconv.Itoa(i), i)
			}
			kept := 0
			for i := range 50 {
				if _, ok := c.Peek("cold" + strconv.Itoa(i)); ok {
					kept++
				}
			}
			if x.dead {
				require.Equal(t, 50, kept)
			} else {
				require.Equal(t, 10, kept)
			}
		})
	}
}

// The same in the main queue, where the hits would give another turn.
func TestHitsDoNotKeepWhatIsDeadInTheMainQueue(t *testing.T) {
	for _, dead := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c := newCache(t, stringOptions{Capacity: 100, TTL: time.Minute}, new(backend).load)
			use := func(prefix string, n, times int) {
				for i := range n {
					for range times {
						get(t, c, prefix+strconv.Itoa(i))
					}
				}
			}
			use("old", 50, 4)
			use("scan", 150, 1) // moves the old ones into the main queue
			use("old", 50, 4)
			require.EqualValues(t, 200, c.Stats().Loads)
			if dead {
				time.Sleep(time.Minute)
			}
			use("new", 100, 3)
			kept := 0
			for i := range 100 {
				if _, ok := c.Peek("new" + strconv.Itoa(i)); ok {
					kept++
				}
			}
			if dead {
				require.Equal(t, 100, kept)
			} else {
				require.Less(t, kept, 80)
			}
		})
	}
}

// A hot set survives a scan of a hundred times the capacity, which asks for each
// key once. With LRU nothing is left of it.
func TestHotSetSurvivesAScan(t *testing.T) {
	const capacity, hot = 1000, 800
	c, l := newCountedCache(t, capacity), lru{capacity: capacity}
	for range 5 {
		for k := range hot {
			c.request(k)
			l.request(k)
		}
	}
	for k := range 100 * capacity {
		c.request(1_000_000 + k)
		l.request(1_000_000 + k)
	}
	kept, keptByLRU := 0, 0
	for k := range hot {
		if _, ok := c.Peek(k); ok {
			kept++
		}
		if l.at[k] != nil {
			keptByLRU++
		}
	}
	require.Zero(t, keptByLRU)
	require.GreaterOrEqual(t, kept, hot*99/100)
}

// On a Zipf trace, the shape of most caches' traffic, fewer requests miss than
// with LRU: a tenth of the keys fit. With scans in between the gap widens.
func TestFewerMissesThanLRU(t *testing.T) {
	const capacity, keys, requests = 1000, 10_000, 100_000
	for _, scans := range []bool{false, true} {
		c, l := newCountedCache(t, capacity), lru{capacity: capacity}
		r := rand.New(rand.NewPCG(1, 2))
		zipf := rand.NewZipf(r, 1.05, 1, keys-1)
		hits, hitsOfLRU, sum := 0, 0, 0
		scan := 1_000_000
		for i := range requests {
			key := int(zipf.Uint64())
			if scans && i%3 == 0 {
				key, scan = scan, scan+1
			}
			if i < requests/10 {
				c.request(key) // the caches fill
				l.request(key)
				continue
			}
			sum++
			if c.request(key) {
				hits++
			}
			if l.request(key) {
				hitsOfLRU++
			}
		}
		misses, missesOfLRU := float64(sum-hits)/float64(sum), float64(sum-hitsOfLRU)/float64(sum)
		t.Logf("scans %v: misses %.4f, LRU %.4f", scans, misses, missesOfLRU)
		require.Less(t, misses, 0.95*missesOfLRU)
	}
}

// A key that was let go and comes back while it is remembered is in the main
// queue at once, where a scan does not reach it.
func TestKeyThatComesBackStays(t *testing.T) {
	const capacity = 100
	c := newCountedCache(t, capacity)
	scan := 1000
	once := func(n int) {
		for range n {
			c.request(scan)
			scan++
		}
	}
	c.request(1)
	once(capacity)
	_, ok := c.Peek(1)
	require.False(t, ok, "it was let go")
	c.request(1)
	once(5 * capacity)
	_, ok = c.Peek(1)
	require.True(t, ok)

	c.request(2)
	once(3 * capacity)
	_, ok = c.Peek(2)
	require.False(t, ok)
	c.request(2) // too late: it is not remembered any more
	once(capacity)
	_, ok = c.Peek(2)
	require.False(t, ok)
}

// Of a cache full of hot entries, an eviction looks at a bounded number.
func TestEvictionAmongHotEntriesIsBounded(t *testing.T) {
	const capacity = 5000
	c := newCountedCache(t, capacity)
	for k := range capacity {
		for range 5 {
			c.request(k)
		}
	}
	most := 0
	for range capacity / 2 {
		most = max(most, c.EvictOne())
	}
	require.Equal(t, 128, most)
	c.Check()
	require.Equal(t, capacity/2, c.Stats().Entries)
}
