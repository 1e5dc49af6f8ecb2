// kinesalite on 127.0.0.1, with its data in a directory: node serve.js MODULES PORT DIR
//
// Its own command listens on every interface. It never answers who asks for an iterator at a time behind which there is no
// record: here that is the end of the shard, as it is at Amazon. And it gives a stream no tags when it is made.
'use strict'
const path = require('path')
const [modules, port, dir] = process.argv.slice(2)
const home = path.join(modules, 'kinesalite')

function replace(action, make) {
  const file = require.resolve(path.join(home, 'actions', action))
  const made = make(require(file))
  require.cache[file].exports = made
}

replace('getShardIterator', getShardIterator => (store, data, answer) => {
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
})

const {types} = require(path.join(home, 'validations/createStream'))
types.Tags = {...require(path.join(home, 'validations/addTagsToStream')).types.Tags, notNull: false}
replace('createStream', createStream => (store, data, answer) => {
  const metaDb = Object.create(store.metaDb)
  metaDb.put = (key, stream, ...rest) => store.metaDb.put(key, {...stream, _tags: {...data.Tags, ...stream._tags}}, ...rest)
  createStream(Object.assign(Object.create(store), {metaDb}), data, answer)
})

require(home)({path: dir, createStreamMs: 20, deleteStreamMs: 20, updateStreamMs: 20, shardLimit: 1000})
  .listen(Number(port), '127.0.0.1')
