// kinesalite on 127.0.0.1, with its data in a directory: node serve.js MODULES PORT DIR
//
// Its own command listens on every interface. And it never answers who asks for an iterator at a time behind which there is
// no record: here that is the end of the shard, as it is at Amazon.
'use strict'
const path = require('path')
const [modules, port, dir] = process.argv.slice(2)
const home = path.join(modules, 'kinesalite')
const action = require.resolve(path.join(home, 'actions/getShardIterator'))
const getShardIterator = require(action)

require.cache[action].exports = (store, data, answer) => {
  if (data.ShardIteratorType !== 'AT_TIMESTAMP' || data.Timestamp == null) return getShardIterator(store, data, answer)
  const {shardIxToHex, resolveShardId} = require(path.join(home, 'db'))
  let found = false
  let shard
  try {
    shard = resolveShardId(data.ShardId).shardIx
  } catch {
    return getShardIterator(store, data, answer)
  }
  store.getStreamDb(data.StreamName).createValueStream({gt: shardIxToHex(shard), lt: shardIxToHex(shard + 1)})
    .on('data', record => { found = found || record.ApproximateArrivalTimestamp >= data.Timestamp })
    .on('end', () => getShardIterator(store, found ? data :
      {StreamName: data.StreamName, ShardId: data.ShardId, ShardIteratorType: 'LATEST'}, answer))
}

require(home)({path: dir, createStreamMs: 20, deleteStreamMs: 20, updateStreamMs: 20, shardLimit: 1000})
  .listen(Number(port), '127.0.0.1')
