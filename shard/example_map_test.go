package shard_test

import (
	"encoding/json"
	"fmt"

	"github.com/evenkeel-go/evenkeel/shard"
)

// A shard has grown too large: it is cut in two, and one half moves. No other key does.
func ExampleMap_Split() {
	ranges, _ := shard.EvenRanges(2)
	m, _ := shard.NewMap(1, shard.Shard{Range: ranges[0], Node: "db1"}, shard.Shard{Range: ranges[1], Node: "db2"})
	split, _ := m.Split("80-")
	moved, _ := split.Move("c0-", "db3")
	for c := range m.Diff(moved) {
		fmt.Printf("%v: %s on %s becomes %s on %s, rows move: %t\n", c.Range, c.From.Name, c.From.Node, c.To.Name, c.To.Node, c.Moves())
	}
	text, _ := json.Marshal(moved)
	fmt.Println(string(text))
	// Output:
	// 80-c0: 80- on db2 becomes 80-c0 on db2, rows move: false
	// c0-: 80- on db2 becomes c0- on db3, rows move: true
	// {"version":1,"epoch":3,"shards":[{"range":"-80","node":"db1"},{"range":"80-c0","node":"db2"},{"range":"c0-","node":"db3"}]}
}

// A read of many keys becomes one read a shard.
func ExampleMap_Group() {
	ranges, _ := shard.EvenRanges(2)
	m, _ := shard.NewMap(1, shard.Shard{Range: ranges[0]}, shard.Shard{Range: ranges[1]})
	channels := []string{"channel:1", "channel:2", "channel:3", "channel:4"}
	ids := make([]shard.ID, len(channels))
	for i, c := range channels {
		ids[i] = shard.XXHash(c)
	}
	for s, positions := range m.Group(ids) {
		fmt.Print(s.Name, ":")
		for _, i := range positions {
			fmt.Print(" ", channels[i])
		}
		fmt.Println()
	}
	// Output:
	// -80: channel:1 channel:4
	// 80-: channel:2 channel:3
}

// PostgreSQL computes the points of PGText itself, so a shard's rows are a condition.
func ExampleRange_SQL() {
	r, _ := shard.ParseRange("40-80")
	fmt.Println("SELECT * FROM messages WHERE " + r.SQL("hashtextextended(channel, 0)"))
	fmt.Println(r.Contains(shard.PGText("channel:4")), shard.PGText("channel:4").Int64())
	// Output:
	// SELECT * FROM messages WHERE (hashtextextended(channel, 0) >= -4611686018427387904 AND hashtextextended(channel, 0) < 0)
	// true -2977886178263038917
}

// The channels of a guild stay together, in a 256th of the ring, so that a query for the
// guild asks few shards; the channels themselves spread over them.
func ExampleCombine() {
	ranges, _ := shard.EvenRanges(1024)
	shards := make([]shard.Shard, len(ranges))
	for i, r := range ranges {
		shards[i].Range = r
	}
	m, _ := shard.NewMap(1, shards...)
	guild := shard.XXHash("guild:7")
	for _, channel := range []string{"general", "random", "help"} {
		fmt.Println(channel, "is in", m.Lookup(shard.Combine(8, guild, shard.XXHash(channel))).Name)
	}
	for s := range m.Overlapping(shard.Prefix(8, guild)) {
		fmt.Println("the guild is in", s.Name)
	}
	// Output:
	// general is in de40-de80
	// random is in de-de40
	// help is in dec0-df
	// the guild is in de-de40
	// the guild is in de40-de80
	// the guild is in de80-dec0
	// the guild is in dec0-df
}

// Parts that joined plainly would be one key are two.
func ExampleTuple() {
	fmt.Println(shard.XXHash(shard.Tuple("a:b", "c")), shard.XXHash(shard.Tuple("a", "b:c")))
	fmt.Println(shard.Tuple("a:b", "c") == shard.Tuple("a", "b:c"))
	// Output:
	// cb805fa4666ce8a9 3f822a539260f098
	// false
}
