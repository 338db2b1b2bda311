"""Boards over the network: TVM's RPC, directly and through TVM's tracker."""
