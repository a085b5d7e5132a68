package shard_test

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// logical makes sixteen logical shards, tables of 1000 rows with an index by k, on one
// PostgreSQL, and one table of the same rows. Each way returns the first 20 by k.
func logical(b testing.TB) map[string]func(context.Context) ([]int64, error) {
	db := databases["postgres"](b)
	db.SetMaxOpenConns(32)
	db.SetMaxIdleConns(32)
	exec(b, db, `CREATE TABLE single (k BIGINT PRIMARY KEY, v TEXT)`)
	ranges, err := shard.EvenRanges(16)
	require.NoError(b, err)
	shards := make([]shard.Shard, len(ranges))
	rng := rand.New(rand.NewPCG(1, 1))
	for i, r := range ranges {
		shards[i] = shard.Shard{Range: r, Node: "pg"}
		exec(b, db, fmt.Sprintf(`CREATE TABLE logical_%s (k BIGINT PRIMARY KEY, v TEXT)`, table(r)))
		values := make([]string, 1000)
		for j := range values {
			values[j] = fmt.Sprintf("(%d, 'some text of a row')", rng.Int64())
		}
		all := strings.Join(values, ",")
		exec(b, db, fmt.Sprintf(`INSERT INTO logical_%s VALUES %s`, table(r), all))
		exec(b, db, `INSERT INTO single VALUES `+all)
	}
	exec(b, db, `ANALYZE`)
	m, err := shard.NewMap(1, shards...)
	require.NoError(b, err)
	return map[string]func(context.Context) ([]int64, error){
		"single": func(ctx context.Context) ([]int64, error) {
			return first20(ctx, db, "SELECT k, v FROM single ORDER BY k LIMIT 20")
		},
		"errgroup": func(ctx context.Context) ([]int64, error) {
			parts := make([][]int64, m.Len())
			g, ctx := errgroup.WithContext(ctx)
			i := 0
			for s := range m.All() {
				part := &parts[i]
				i++
				g.Go(func() (err error) {
					*part, err = first20(ctx, db, selectFrom(s))
					return err
				})
			}
			if err := g.Wait(); err != nil {
				return nil, err
			}
			return merged(parts)
		},
		"scatter": func(ctx context.Context) ([]int64, error) {
			found, err := gather.Scatter(ctx, m.All(), func(ctx context.Context, s *shard.Shard) ([]int64, error) {
				return first20(ctx, db, selectFrom(s))
			}, gather.Options{})
			if err != nil {
				return nil, err
			}
			var parts [][]int64
			for _, r := range found.Results {
				parts = append(parts, r.Value)
			}
			return merged(parts)
		},
		"limits": func(ctx context.Context) ([]int64, error) { // as nodes, with a limit in each part of the union
			var parts []string
			for s := range m.All() {
				parts = append(parts, "("+selectFrom(s)+")")
			}
			return first20(ctx, db, strings.Join(parts, " UNION ALL ")+" ORDER BY k LIMIT 20")
		},
		"nodes": func(ctx context.Context) ([]int64, error) {
			found, err := gather.ScatterNodes(ctx, m.ByNode(), func(ctx context.Context, _ string, shards []*shard.Shard) ([]int64, error) {
				return first20(ctx, db, selectFromAll(shards))
			}, gather.Options{})
			if err != nil {
				return nil, err
			}
			var parts [][]int64
			for _, r := range found.Results {
				parts = append(parts, r.Value)
			}
			return merged(parts)
		},
	}
}

func table(r shard.Range) string { return strings.ReplaceAll(r.String(), "-", "_") }

func selectFrom(s *shard.Shard) string {
	return "SELECT k, v FROM logical_" + table(s.Range) + " ORDER BY k LIMIT 20"
}

// selectFromAll asks for the first rows of all shards of a node at once. Without limits
// inside the union PostgreSQL merges the shards' indexes and reads twenty rows in all.
func selectFromAll(shards []*shard.Shard) string {
	parts := make([]string, len(shards))
	for i, s := range shards {
		parts[i] = "SELECT k, v FROM logical_" + table(s.Range)
	}
	return "SELECT k, v FROM (" + strings.Join(parts, " UNION ALL ") + ") AS shards ORDER BY k LIMIT 20"
}

func first20(ctx context.Context, db *sql.DB, query string) ([]int64, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []int64
	for rows.Next() {
		var k int64
		var v string
		if err := rows.Scan(&k, &v); err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	return all, rows.Err()
}

func merged(parts [][]int64) ([]int64, error) {
	streams := make([]iter.Seq2[int64, error], len(parts))
	for i, part := range parts {
		streams[i] = gather.Rows(part)
	}
	var all []int64
	for k, err := range gather.Merge(cmp.Compare[int64], streams...) {
		if err != nil {
			return nil, err
		}
		if all = append(all, k); len(all) == 20 {
			break
		}
	}
	return all, nil
}

// BenchmarkLogical compares ways to the first rows of sixteen logical shards that share a
// PostgreSQL. The floor is the one table. They take turns in each round, and the ratios to
// the others are medians of medians.
func BenchmarkLogical(b *testing.B) {
	ways := logical(b)
	times := map[string][]float64{}
	for b.Loop() {
		for range 50 {
			for name, ask := range ways {
				started := time.Now()
				rows, err := ask(b.Context())
				if err != nil || len(rows) != 20 {
					b.Fatal(name, len(rows), err)
				}
				times[name] = append(times[name], float64(time.Since(started).Microseconds()))
			}
		}
	}
	for name := range ways {
		b.ReportMetric(median(times[name]), name+"-µs")
	}
	b.ReportMetric(median(times["errgroup"])/median(times["nodes"]), "errgroup/nodes")
	b.ReportMetric(median(times["nodes"])/median(times["single"]), "nodes/single")
	b.ReportMetric(0, "ns/op")
}

// TestEveryWayFindsTheSameRows keeps the benchmark honest.
func TestEveryWayFindsTheSameRows(t *testing.T) {
	ways := logical(t)
	want, err := ways["single"](t.Context())
	require.NoError(t, err)
	for name, ask := range ways {
		got, err := ask(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, got, name)
	}
}

func median(times []float64) float64 {
	slices.Sort(times)
	return times[len(times)/2]
}
