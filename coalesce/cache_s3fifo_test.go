package coalesce_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A modelS3FIFO is Algorithm 1 of the S3-FIFO paper, said with slices.
type modelS3FIFO struct {
	capacity    int
	small, main []int // oldest first
	hits        map[int]int
	ghost       map[int]int // when it was added
	added       int
	limit       int
}

func (m *modelS3FIFO) request(key int) {
	if hits, ok := m.hits[key]; ok {
		m.hits[key] = min(3, hits+1)
		return
	}
	for len(m.hits) == m.capacity {
		m.evict()
	}
	at, remembered := m.ghost[key]
	delete(m.ghost, key)
	if remembered && m.added-at < m.limit {
		m.main = append(m.main, key)
	} else {
		m.small = append(m.small, key)
	}
	m.hits[key] = 0
}

func (m *modelS3FIFO) evict() {
	if len(m.small) > 0 && (10*len(m.small) >= m.capacity || len(m.main) == 0) {
		key := m.small[0]
		m.small = m.small[1:]
		if m.hits[key] > 1 {
			m.hits[key] = 0
			m.main = append(m.main, key)
			return
		}
		delete(m.hits, key)
		m.limit = max(1, len(m.hits)*9/10)
		m.added++
		m.ghost[key] = m.added
		return
	}
	key := m.main[0]
	m.main = m.main[1:]
	if m.hits[key] > 0 {
		m.hits[key]--
		m.main = append(m.main, key)
		return
	}
	delete(m.hits, key)
}

// What is in memory after any requests is what the algorithm of the paper keeps.
// A ghost of eight fits into one set of the table, so that it is exact.
func TestEvictionIsS3FIFO(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		const capacity = 10
		c := newCountedCache(t, capacity)
		m := &modelS3FIFO{capacity: capacity, hits: map[int]int{}, ghost: map[int]int{}}
		keys := rapid.IntRange(0, 30)
		for range rapid.IntRange(0, 300).Draw(r, "requests") {
			// The smaller of two is smaller than usual: some keys are hot.
			key := min(keys.Draw(r, "key"), keys.Draw(r, "or key"))
			c.request(key)
			m.request(key)
			require.Equal(r, slices.Sorted(maps.Keys(m.hits)), slices.Sorted(maps.Keys(maps.Collect(c.All()))))
		}
		c.Check()
	})
}
