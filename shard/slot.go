package shard

import "strings"

// RedisSlots is the number of hash slots of a Redis Cluster.
const RedisSlots = 1 << 14

// RedisSlot returns the hash slot of a key in Redis Cluster, 0 to 16383: CRC16 (the
// XMODEM polynomial 0x1021) of its [Tag], modulo 16384, as the Redis Cluster
// specification has it. ID(slot)<<50 puts the slots on the ring in order, so that a
// [Map] can say which node has which.
//
// It costs about 2 ns a byte of the tag, allocates nothing and is safe for concurrent
// use.
func RedisSlot(key string) uint16 {
	key = Tag(key)
	var crc uint16
	for i := range len(key) {
		crc = crc<<8 ^ crc16[byte(crc>>8)^key[i]]
	}
	return crc % RedisSlots
}

// Tag returns what is between the first "{" of key and the next "}", or the whole key
// if that is empty or there is none. Keys of one tag are placed together, as in Redis
// Cluster: XXHash(Tag(key)) does it on any ring. It costs a search and allocates
// nothing.
func Tag(key string) string {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}

// crc16 is the effect of each byte on the remainder.
var crc16 = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			carry := crc >> 15
			crc = crc<<1 ^ carry*0x1021
		}
		table[i] = crc
	}
	return table
}()
