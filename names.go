package hivebeat

// BucketHolds is the name of the bucket of holds, before the prefix.
const BucketHolds = "queen_holds"
