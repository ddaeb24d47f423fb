import functools, json
import jax, jax.numpy as jnp
from jax import lax
LEG=dict(custom_call_api_version=2)
def _d(): return {"dims":4,"data":{"batch_dim":0,"feature_dim":3,"spatial_dims":[1,2]}}
def dnn_conv(x,k,strides,pad,swap=False,dtype=jnp.float32):
    n,h,w,c=x.shape; kh,kw,_,o=k.shape
    if swap: o=k.shape[2]
    (a,b),(l,r)=pad
    H=(h+a+b-kh)//strides[0]+1; W=(w+l+r-kw)//strides[1]+1
    cfg={"onednn_conv_config":{"dims":4,"input":_d(),"kernel":{"dims":4,"filter":{"input_feature_dim":2+swap,"output_feature_dim":3-swap,"spatial_dims":[0,1]}},"output":_d(),
     "window":{"size":[kh,kw],"pad_left":[a,l],"pad_right":[b,r],"strides":list(strides),"window_dilations":[1,1]},"feature_groups":1}}
    return jax.ffi.ffi_call("__onednn$convolution",jax.ShapeDtypeStruct((n,H,W,o),dtype),legacy_backend_config=json.dumps(cfg),vmap_method="sequential",**LEG)(x,k)
def dnn_dot_t(a,b):
    return jax.ffi.ffi_call("__onednn$matmul",jax.ShapeDtypeStruct((a.shape[1],b.shape[1]),jnp.float32),legacy_backend_config='{"onednn_matmul_config":{"transpose_a":true}}',vmap_method="sequential",**LEG)(a,b)
def xla_conv(x,k,strides,pad,swap=False): return lax.conv_general_dilated(x,k.swapaxes(2,3) if swap else k,strides,pad,dimension_numbers=("NHWC","HWIO","NHWC"),preferred_element_type=jnp.float32)
def xla_dot_t(a,b): return lax.dot_general(a,b,(((0,),(0,)),((),())),preferred_element_type=jnp.float32)
BK={"dnn":(dnn_conv,dnn_dot_t),"xla":(xla_conv,xla_dot_t)}
@functools.partial(jax.custom_vjp,nondiff_argnums=(2,3,4))
def conv(x,k,strides,pad,bk): return BK[bk][0](x,k,strides,pad)
def fwd(x,k,strides,pad,bk): return conv(x,k,strides,pad,bk),(x,k)
def bwd(strides,pad,bk,saved,dy):
    x,k=saved
    return input_gradient(dy.astype(x.dtype),k,x.shape,strides,pad,bk).astype(x.dtype), kernel_gradient(x,dy.astype(x.dtype),k.shape,strides,pad,bk).astype(k.dtype)
conv.defvjp(fwd,bwd)
def input_gradient(dy,k,shape,strides,pad,bk):
    n,h,w,c=shape; s=strides[0]; cv=BK[bk][0]
    flipped=k[::-1,::-1]
    if s==1:
        kh,kw=k.shape[:2]
        return cv(dy,flipped,(1,1),((kh-1-pad[0][0],h-1-(dy.shape[1]-1)+pad[0][0]),(kw-1-pad[1][0],w-1-(dy.shape[2]-1)+pad[1][0])),True)
    def axis(size,k,lo,p,a):  # outputs a, a+s, ..: taps i with (a+lo-i)%s==0; dx[a+s*u]=sum_t dy[u+off-t] k[i0+s*t]
        i0=(a+lo)%s; taps=len(range(i0,k,s)); off=(a+lo-i0)//s; m=len(range(a,size,s))
        return i0,taps,off,m
    rows=[]
    H=-(-h//s); W=-(-w//s)
    for a in range(s):
        cols=[]
        for b in range(s):
            i0,ti,oi,mi=axis(h,k.shape[0],pad[0][0],dy.shape[1],a); j0,tj,oj,mj=axis(w,k.shape[1],pad[1][0],dy.shape[2],b)
            kk=k[i0::s,j0::s][::-1,::-1]
            # dx[u]=sum_t dy[u+off-t] k[t] -> index u' = u+off-(T-1)+t'  -> pad_lo = T-1-off ; hi so that size H
            def pads(T,off,m,p): lo=T-1-off; return lo, m-1+T-(p+lo)
            cols.append(cv(dy,kk,(1,1),(pads(ti,oi,H,dy.shape[1]),pads(tj,oj,W,dy.shape[2])),True))
        rows.append(jnp.stack(cols,3))
    dx=jnp.stack(rows,2).reshape(n,H*s,W*s,c)
    return dx[:,:h,:w]
def kernel_gradient(x,dy,shape,strides,pad,bk):
    kh,kw,c,o=shape; s,q=strides; n,P,Q,_=dy.shape; dot=BK[bk][1]
    H=(P-1)*s+kh; W=(Q-1)*q+kw
    (a,b),(l,r)=pad
    x=lax.pad(x,jnp.zeros((),x.dtype),((0,0,0),(a,H-x.shape[1]-a,0),(l,W-x.shape[2]-l,0),(0,0,0)))
    out=[None]*kh
    for i0 in range(min(s,kh)):
        T=len(range(i0,kh,s)); R=P+T-1
        rows=x[:,i0:i0+(R-1)*s+1:s]
        X=jnp.concatenate([rows[:,:,j:j+(Q-1)*q+1:q] for j in range(kw)],-1).reshape(n*R*Q,kw*c)
        D=jnp.concatenate([jnp.pad(dy,((0,0),(t,T-1-t),(0,0),(0,0))) for t in range(T)],-1).reshape(n*R*Q,T*o)
        g=dot(X,D).reshape(kw,c,T,o)
        for t in range(T): out[i0+s*t]=g[:,:,t]
    return jnp.stack(out)

def dnn_dot_bt(a,b):
    return jax.ffi.ffi_call("__onednn$matmul",jax.ShapeDtypeStruct((a.shape[0],b.shape[0]),jnp.float32),legacy_backend_config='{"onednn_matmul_config":{"transpose_b":true}}',vmap_method="sequential",**LEG)(a,b)
