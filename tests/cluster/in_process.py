"""A stand-in for Ray that runs actors in this process, and loses them where a test says so."""

from types import SimpleNamespace


class RayError(Exception):
    pass


class ActorDiedError(RayError):
    pass


class ObjectLostError(RayError):
    pass


class WorkerCrashedError(RayError):
    pass


class OutOfMemoryError(RayError):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class Reference(SimpleNamespace):
    """Hashable, as Ray's are."""

    __hash__ = object.__hash__


class Actor:
    """Methods as Ray has them: `actor.method.remote(...)` runs it and gives a reference."""

    def __init__(self, ray, kind, given):
        self.ray, self.alive, self.number = ray, True, len(ray.actors)
        self.inner = kind(*map(ray.resolved, given))
        ray.actors.append(self)

    def __getattr__(self, method):
        return SimpleNamespace(remote=lambda *given: self.ray.run(self, method, given))


class InProcess:
    """`dies(actor number, method, how often it was called before)`: is the actor lost by that call?"""

    exceptions = SimpleNamespace(
        RayActorError=ActorDiedError,
        ObjectLostError=ObjectLostError,
        OutOfMemoryError=OutOfMemoryError,
        RayTaskError=RayTaskError,
        WorkerCrashedError=WorkerCrashedError,
    )

    def __init__(self, dies=lambda *call: False):
        self.dies, self.actors, self.calls = dies, [], []

    def remote(self, **resources):
        def decorate(kind):
            return SimpleNamespace(remote=lambda *given: Actor(self, kind, given))

        return decorate

    def put(self, value):
        return Reference(value=value)

    def resolved(self, given):
        return self.get(given) if isinstance(given, Reference) else given

    def get(self, reference):
        if isinstance(reference.value, RayError):
            raise reference.value
        return reference.value

    def wait(self, references, timeout):
        return references[:1], references[1:]

    def kill(self, actor):
        actor.alive = False

    def run(self, actor, method, given):
        call = actor.number, method, self.calls.count((actor.number, method))
        self.calls.append(call[:2])
        if self.dies(*call):
            actor.alive = False
        if not actor.alive:
            return self.put(ActorDiedError("The actor died.\nOut of memory"))
        try:
            return self.put(getattr(actor.inner, method)(*map(self.resolved, given)))
        except RayError as error:  # an argument that is lost is what the task ends with
            return self.put(error)
        except Exception as error:
            return self.put(RayTaskError(error))
