"""`chorusctl`, the command for people: local meshes, tasks, and a look at the mesh. It speaks HTTP only."""
