package stampede_test

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A scenario is what is simulated.
type scenario struct {
	readers   int // of all processes; each asks once a second, on average
	processes int
	keys      int           // the popularity of the i-th is 1/i (Zipf)
	ttl       time.Duration // of a value
	query     time.Duration // that the database takes for a query
	capacity  int           // of the database: queries at a time
	trip      time.Duration // to the shared store and back
	length    time.Duration // of the simulation
}

func standard(readers int) scenario {
	return scenario{
		readers: readers, processes: 4, keys: 20,
		ttl: 10 * time.Second, query: 100 * time.Millisecond, capacity: 8, trip: time.Millisecond,
		length: time.Minute,
	}
}

// A value tells when the database read it.
type value struct{ made time.Time }

// A database answers queries.
type database struct {
	s     scenario
	slots chan struct{}

	mu                 sync.Mutex
	loads, asked, peak int
}

func newDatabase(s scenario) *database {
	return &database{s: s, slots: make(chan struct{}, s.capacity)}
}

func (d *database) load(ctx context.Context, _ string) (value, error) {
	d.mu.Lock()
	d.loads++
	d.asked++
	d.peak = max(d.peak, d.asked)
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.asked--
		d.mu.Unlock()
	}()
	select {
	case d.slots <- struct{}{}:
	case <-ctx.Done():
		return value{}, ctx.Err()
	}
	defer func() { <-d.slots }()
	v := value{time.Now()}
	time.Sleep(d.s.query)
	return v, nil
}

// A process reads values by some strategy.
type process interface {
	get(ctx context.Context, key string) (value, error)
	close()
}

// A result is what a simulation came to.
type result struct {
	loads, ideal, peak int
	p99, max, age      time.Duration
}

// simulate runs in a synctest bubble.
func simulate(s scenario, strategy func(scenario, *database) []process, seed uint64) result {
	d := newDatabase(s)
	processes := strategy(s, d)
	keys := make([]string, s.keys)
	cumulated, sum := make([]float64, s.keys), 0.0
	var warm sync.WaitGroup
	for i := range keys {
		keys[i] = "page/" + strconv.Itoa(i)
		sum += 1 / float64(i+1)
		cumulated[i] = sum
		for _, p := range processes {
			warm.Go(func() { _, _ = p.get(context.Background(), keys[i]) })
		}
	}
	warm.Wait()
	d.loads, d.peak = 0, 0

	end := time.Now().Add(s.length)
	waits, ages := make([][]time.Duration, s.readers), make([][]time.Duration, s.readers)
	var readers sync.WaitGroup
	for i := range s.readers {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		p := processes[i%len(processes)]
		readers.Go(func() {
			for {
				time.Sleep(time.Duration(rng.ExpFloat64() * float64(time.Second)))
				begin := time.Now()
				if begin.After(end) {
					return
				}
				at, _ := slices.BinarySearch(cumulated, rng.Float64()*sum)
				v, err := p.get(context.Background(), keys[min(at, s.keys-1)])
				if err != nil {
					panic(err)
				}
				waits[i] = append(waits[i], time.Since(begin))
				ages[i] = append(ages[i], time.Since(v.made))
			}
		})
	}
	readers.Wait()
	for _, p := range processes {
		p.close()
	}
	w, a := slices.Concat(waits...), slices.Concat(ages...)
	return result{
		loads: d.loads, ideal: s.keys * s.processes * int(s.length/s.ttl), peak: d.peak,
		p99: percentile(w, 0.99), max: slices.Max(w), age: percentile(a, 0.99),
	}
}

func percentile(d []time.Duration, p float64) time.Duration {
	slices.Sort(d)
	return d[int(math.Ceil(p*float64(len(d))))-1]
}
