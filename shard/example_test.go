package shard_test

import (
	"fmt"

	"github.com/evenkeel-go/evenkeel/shard"
)

// Four databases hold the channels of a chat. Every client that has the map
// agrees where a channel lives.
func Example() {
	ranges, err := shard.EvenRanges(4)
	if err != nil {
		fmt.Println(err)
		return
	}
	var shards []shard.Shard
	for i, r := range ranges {
		shards = append(shards, shard.Shard{Range: r, Node: fmt.Sprintf("db%d", i+1)})
	}
	m, err := shard.NewMap(1, shards...)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, channel := range []string{"channel:1", "channel:2", "channel:3"} {
		id := shard.XXHash(channel)
		s := m.Lookup(id)
		fmt.Println(channel, "has the point", id, "in shard", s.Name, "on", s.Node)
	}
	// Output:
	// channel:1 has the point 75884a319a91012e in shard 40-80 on db2
	// channel:2 has the point 9e37348cc078cc32 in shard 80-c0 on db3
	// channel:3 has the point f4e3267a04193c7f in shard c0- on db4
}

func ExampleParseRange() {
	r, err := shard.ParseRange("40-8000")
	fmt.Println(r, err)
	_, err = shard.ParseRange("80-40")
	fmt.Println(err)
	// Output:
	// 40-80 <nil>
	// shard: bad key range "80-40": expected an end after the start
}

func ExampleNewMap() {
	left, _ := shard.ParseRange("-40")
	right, _ := shard.ParseRange("80-")
	_, err := shard.NewMap(1, shard.Shard{Range: left}, shard.Shard{Range: right})
	fmt.Println(err)
	// Output:
	// shard: gap between shards: nothing owns 40-80
}

func ExampleMap_Overlapping() {
	ranges, _ := shard.EvenRanges(4)
	m, _ := shard.NewMap(1, shard.Shard{Range: ranges[0]}, shard.Shard{Range: ranges[1]},
		shard.Shard{Range: ranges[2]}, shard.Shard{Range: ranges[3]})
	part, _ := shard.ParseRange("50-90")
	for s := range m.Overlapping(part) {
		fmt.Println(s.Name)
	}
	// Output:
	// 40-80
	// 80-c0
}
