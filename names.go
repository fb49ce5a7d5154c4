package hivebeat

// BucketHolds is the name of the bucket of holds, without the prefix.
const BucketHolds = "queen_holds"
