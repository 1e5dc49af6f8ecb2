import json,random
random.seed(5)
def w(name,it):
    with open('/tmp/w/scan-x/'+name,'w') as f:
        for x in it: f.write(x+'\n')
def ev(i):
    return {"event_id":"%012d"%i,"type":"order.created","tenant_id":"t-%d"%(i%7),"occurred_at":"2026-11-21T12:00:00Z","customer":{"name":"Ada Lovelace","city":"London"},"lines":[{"sku":"A-%05d"%i,"quantity":3,"price":"19.90"},{"sku":"B-%05d"%i,"quantity":1,"price":"4.50"}],"note":"leave it at the door, please"}
c=lambda o:json.dumps(o,separators=(',',':'),ensure_ascii=False)
w('bench',(c(ev(i)) for i in range(1000)))
w('spaced',(json.dumps(ev(i)) for i in range(1000)))
def rnd(d=0):
    r=random.random()
    if d>3 or r<.4: return ''.join(random.choice('abcdefgh ijk-0123') for _ in range(int(random.expovariate(.08))))
    if r<.6: return random.choice([random.randint(0,10**random.randint(1,12)),round(random.random()*1000,2),True,False,None,-random.random()])
    if r<.8: return [rnd(d+1) for _ in range(random.randint(0,4))]
    return {''.join(random.choice('abcdefgh_') for _ in range(random.randint(2,14))):rnd(d+1) for _ in range(random.randint(0,6))}
def obj(n): 
    return {''.join(random.choice('abcdefgh_') for _ in range(random.randint(2,14))):rnd(0) for _ in range(n)}
w('mixed',(c(obj(random.randint(4,14))) for i in range(5000)))
w('mixedsp',(json.dumps(obj(random.randint(4,14))) for i in range(5000)))
w('small',(c({"id":i,"t":"x%d"%i}) for i in range(1000)))
w('german',(c(dict(ev(i),note="Bitte über die Straße zur Tür, schöne Grüße – müde Bäcker",name="Jürgen Groß")) for i in range(1000)))
w('cjk',(c(dict(ev(i),note="請把它放在門口,謝謝。明天我會回來取。"*3)) for i in range(1000)))
w('uescape',(json.dumps(dict(ev(i),note="Bitte über die Straße zur Tür, schöne Grüße – müde Bäcker"),separators=(',',':')) for i in range(1000)))
w('nested',(c({"id":i,"body":c(ev(i))}) for i in range(1000)))
w('numbers',(c({"id":i,"v":[random.randint(0,10**random.randint(1,9)) for _ in range(40)],"f":[round(random.random()*100,3) for _ in range(20)]}) for i in range(1000)))
w('big',(c({"id":i,"items":[ev(j) for j in range(200)]}) for i in range(50)))
w('bigtext',(c({"id":i,"text":"lorem ipsum dolor sit amet "*2000}) for i in range(50)))
